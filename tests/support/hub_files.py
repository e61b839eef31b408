"""Writes invented sets in the form of the Hugging Face hub."""

import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet
from PIL import Image

PICTURES = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


def png(pixels: numpy.ndarray) -> bytes:
    content = BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    return content.getvalue()


def picture(content: bytes | Path | numpy.ndarray, name: str | None = None) -> dict[str, object]:
    """Returns a cell of a column of pictures."""
    if isinstance(content, Path):
        name, content = name or content.name, content.read_bytes()
    return {"bytes": png(content) if isinstance(content, numpy.ndarray) else content, "path": name}


def write_parquet(
    path: Path,
    rows: Sequence[Mapping[str, object]],
    image_column: str = "image",
    class_names: Mapping[str, Sequence[str]] | None = None,
    row_group_size: int = 3,
) -> Path:
    """Writes rows as `datasets` does: pictures as {bytes, path}, class names in the schema's metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    table = pyarrow.table(
        {name: pyarrow.array(values, PICTURES if name == image_column else None) for name, values in columns.items()}
    )
    if class_names is not None:
        features = {name: {"names": list(names), "_type": "ClassLabel"} for name, names in class_names.items()}
        features[image_column] = {"_type": "Image"}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pyarrow.parquet.write_table(table, path, row_group_size=row_group_size)
    return path


def write_shards(folder: Path, split: str, rows: Sequence[Mapping[str, object]], shards: int = 2, **options) -> None:
    """Writes a split in several files, named as the hub names them."""
    for number, part in enumerate(numpy.array_split(numpy.arange(len(rows)), shards)):
        path = folder / f"{split}-{number:05d}-of-{shards:05d}.parquet"
        write_parquet(path, [rows[position] for position in part], **options)
