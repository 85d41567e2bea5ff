"""The commands of `eventstore`, by what they are for; `projections.cli` puts them together."""

from eventstore.on_demand import offering

LISTED = {
    "record": ("writing", "Store each state that passes from stdin to stdout."),
    "pipelines": ("reading", "List the pipelines, and the version and time of each."),
    "log": ("following", "Print events, oldest first, and what each of them moved."),
    "show": ("reading", "Print one event whole."),
    "state": ("reading", "Print the state, as a connector's --state file takes it."),
    "catalog": ("reading", "Print the catalog, as a connector's --catalog file takes it."),
    "diff": ("explaining", "Print what changed from one moment to another."),
    "blame": ("explaining", "Print who set each value of the state, when and in which run."),
    "doctor": ("explaining", "Print what looks wrong."),
    "rewind": ("restoring", "Make the state as of a moment the current one."),
    "clear": ("restoring", "Forget the state, of all streams or of some."),
    "set_state": ("restoring", "Make the state in a file the current one."),
    "copy": ("restoring", "Make the state of a pipeline that of another one."),
    "move": ("restoring", "Move the state to another pipeline."),
    "rebuild": ("writing", "Fill the state and catalog tables anew from the log."),
    "export": ("exchanging", "Write whole histories as JSON lines, for `import` elsewhere."),
    "import_": ("exchanging", "Take in the whole histories of an export."),
    "verify": ("proving", "Prove that nothing was changed."),
    "checkpoint": ("proving", "Sign where all histories end; keep the file elsewhere."),
    "keygen": ("proving", "Make a pair of keys for checkpoints."),
    "erase": ("erasing", "Erase bodies for good, for legal reasons."),
    "retention": ("erasing", "Erase the bodies of states that are older than an age."),
}
"""The functions in the order of `--help`: in which module, and what is said of each there."""

__getattr__ = offering(__name__, {name: module for name, (module, _) in LISTED.items()})
