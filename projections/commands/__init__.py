"""The commands of `eventstore`, by what they are for; `projections.cli` puts them together."""
