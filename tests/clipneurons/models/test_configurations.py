from pathlib import Path

from clipneurons.models.configurations import statuses, table

DOCUMENT = Path(__file__).parents[3] / "docs/guide/models.md"


def test_the_table_is_the_documents():
    found = statuses()
    read = [name for name, status in found.items() if not status.startswith("refused")]
    assert len(read) == 110
    assert table(found) in DOCUMENT.read_text(), "python -m clipneurons.models.configurations"
