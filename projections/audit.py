"""What happened: what each event moved, two states or catalogs side by side, and who set what."""

from projections.blame import Blame, blame
from projections.catalog_diff import CatalogChange, diff_catalogs
from projections.changes import EventChange, Note, changes, explained, went_backwards
from projections.differences import Change, diff, json_patch, stat
from projections.doctor import Finding, doctor
from projections.wording import blob, erased_from, erasure, moved, summary

__all__ = [
    "Blame",
    "CatalogChange",
    "Change",
    "EventChange",
    "Finding",
    "Note",
    "blame",
    "blob",
    "changes",
    "diff",
    "diff_catalogs",
    "doctor",
    "erased_from",
    "erasure",
    "explained",
    "json_patch",
    "moved",
    "stat",
    "summary",
    "went_backwards",
]
