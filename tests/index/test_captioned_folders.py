"""A folder of pictures with texts beside them is kept in an index; another name or text makes another one."""

from pathlib import Path

from PIL import Image

from data_modules.conversations import Conversations
from data_modules.index.kept import BYTES_FOR_A_FILE, bytes_of_files
from data_modules.reading.files import fake_image
from lightning_m2pt.testing.small_processor import small_processor
from tests.index.test_indexed_sets import numbers_of


def test_a_folder_of_captions_is_known_by_its_listing(tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "captioned"
    (folder / "below").mkdir(parents=True)
    for number in range(8):
        Image.fromarray(fake_image(number, 8)).save(folder / "below" / f"{number}.png")
        (folder / "below" / f"{number}.txt").write_text(f"number {number}")
    (folder / "gone.txt").symlink_to(tmp_path / "nowhere")
    reads = []
    read = Conversations.read
    monkeypatch.setattr(Conversations, "read", lambda self: reads.append(0) or read(self))

    def captioned(*, is_read: bool, index: bool = True) -> Conversations:
        del reads[:]
        made = Conversations(str(folder), "plain", 4, order_seed=1, index=index, index_folder=str(tmp_path / "index"))
        made.connect(small_processor(8))
        made.check()
        assert reads == [0] * is_read
        return made

    first = captioned(is_read=True)
    assert numbers_of(first) == numbers_of(captioned(is_read=False)) == numbers_of(captioned(is_read=True, index=False))
    Image.fromarray(fake_image(3, 8)).save(folder / "below" / "2.png")
    captioned(is_read=False)
    (folder / "below" / "2.txt").write_text("number 5")
    assert captioned(is_read=True).items()[2].turns[0].answer == "number 5"
    (folder / "below" / "7.png").unlink()
    assert len(captioned(is_read=True).items()) == 7
    assert bytes_of_files([folder]) == 16 * BYTES_FOR_A_FILE
