"""Tar shards are read in any order and gone on with by arithmetic, from their index."""

import io
import json
import os
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from data_modules.conversations import Conversations
from data_modules.reading.files import fake_image
from lightning_m2pt.testing.small_processor import small_processor


def write_shards(folder: Path) -> None:
    """Three shards of eight talks about pictures of their own."""
    for shard in range(3):
        folder.mkdir(exist_ok=True)
        with tarfile.open(folder / f"train-{shard:06d}.tar", "w") as tar:
            for number in range(8):
                picture = io.BytesIO()
                Image.fromarray(fake_image(8 * shard + number, 8)).save(picture, "PNG")
                talk = [{"from": "human", "value": f"<image>\nnumber {number} ?"}, {"from": "gpt", "value": "red"}]
                for ending, content in (("png", picture.getvalue()), ("json", json.dumps({"conversations": talk}))):
                    member = tarfile.TarInfo(f"{shard:03d}{number:03d}.{ending}")
                    content = content.encode() if isinstance(content, str) else content
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


def test_shards_are_read_in_any_order_and_gone_on_with_by_arithmetic(tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "shards"
    write_shards(folder)

    def shards(**options: object) -> Conversations:
        made = Conversations(str(folder), "vicuna_v1", 4, order_seed=1, index_folder=str(tmp_path / "index"), **options)
        made.connect(small_processor(8))
        made.check()
        made.fingerprint()
        return made

    loader = shards(micro_batch_size=2).train_dataloader()
    passes = iter(loader)
    before = [next(passes) for _ in range(4)]
    state = loader.state_dict()
    after = list(passes)
    monkeypatch.setattr(Conversations, "read", lambda _: pytest.fail("not from the index"))
    monkeypatch.setattr("data_modules.base.check_image", lambda *_: pytest.fail("opened again"))
    again = shards(micro_batch_size=4, num_workers=1)
    resumed = again.train_dataloader()
    resumed.load_state_dict(state)
    batches = list(resumed)
    assert torch.equal(torch.cat([batch.pixel_values for batch in batches]), torch.cat([b.pixel_values for b in after]))
    order = again.sampler(0, 1).positions().reshape(-1).tolist()
    assert [name for batch in [*before, *after] for name in batch.sample_ids] == [again.items()[n].id for n in order]
    assert len({again.items()[n].image.path for n in order[:8]}) > 1  # not shard by shard
    os.utime(folder / "train-000001.tar", (1, 1))
    with pytest.raises(pytest.fail.Exception, match="not from the index"):
        shards()
