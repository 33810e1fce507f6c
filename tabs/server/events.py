"""Options of events, said once."""

from tabs.server.session import MODEL

# For the page alone: programs do not see the event.
PRIVATE = {"api_visibility": "private"}
# One at a time with all others that use the model.
ON_MODEL = {"concurrency_id": MODEL}
# What is asked while an earlier answer is made is answered after it, the last of several: Gradio
# forgets it otherwise, and the page shows an answer to what was chosen before.
LATEST = {"trigger_mode": "always_last"}
# The same for an event with data (such as which picture of a gallery), which waiting would lose.
EACH = {"trigger_mode": "multiple"}
