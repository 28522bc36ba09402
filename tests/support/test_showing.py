"""What people see of objects: a few lines, in a terminal and in a notebook."""

from __future__ import annotations

from pathlib import Path

import nern
from tests.own.test_represent import SHORT, cnn, images


def test_objects_say_in_a_few_lines_what_a_person_wants(tmp_path: Path) -> None:
    engine = nern.Engine.from_model(cnn(), images(), SHORT, output=tmp_path / "run")
    assert repr(engine).splitlines()[1] == "not fitted yet"
    result = engine.fit()
    artifact = nern.load(result.artifact)
    shown = {
        "Engine: Sequential by MLP of hidden size": engine,
        "Result of 5 steps in ": result,
        "Artifact of ": artifact,
        "Representation by Layers of RandomFourier: ": artifact.representation,
        "KernelGrid(3 layers, ": artifact.representation.grid,
        "Registry(": engine.registry,
        "GivenData(train, heldout, test)": engine.data,
    }
    for beginning, value in shown.items():
        text = repr(value)
        assert text.startswith(beginning)
        assert len(text) < 700
        assert len(text.splitlines()) <= 5
        assert value._repr_html_().startswith("<pre>")  # type: ignore[attr-defined]
        assert beginning in value._repr_html_()  # type: ignore[attr-defined]
    assert f"{result.bytes.total:,} after" in repr(result)
    assert "1,638 weights" in repr(artifact)
    assert "top1" in repr(artifact)
