"""What goes out and comes in: states in the forms others use, and whole histories."""

from eventstore.importing import Imported, import_histories
from eventstore.transfer import export_histories
from projections.state_forms import FORMS, Form, read_state, write_state

__all__ = [
    "FORMS",
    "Form",
    "Imported",
    "export_histories",
    "import_histories",
    "read_state",
    "write_state",
]
