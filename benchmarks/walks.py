"""Takes networks the whole way: represents each, reports, loads the file where its class or library is missing, and exports it.

Every step is a process of its own, as a user starts it. What is loaded and exported is compared with the network that the run itself
reconstructs: state dicts to the last bit, outputs by their largest difference. The runs are short, since the question is whether every
step works and whether all of them give the same network, not how good a representation can be. `--only` walks with some of the
networks, and keeps the earlier rows of the others.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.report import RESULTS, ROOT, machine, placed, table
from benchmarks.walkers import PLACES, WALKERS, Walker
from nern.studies.wording import with_unit

PAGE = ROOT / "docs" / "own-network.md"
FORMATS = ("safetensors", "pt", "pt2", "onnx")
#: Where the run's folder, the class and its libraries are: what the run itself reconstructs.
EXPECTED = """
import nern, torch
from safetensors.torch import save_file
engine = nern.Engine.from_run("run")
torch.manual_seed(0)
inputs = torch.randn_like(engine.artifact.architecture.example_inputs(3))
with torch.no_grad():
    save_file({"inputs": inputs, "outputs": engine.reconstruct()(inputs)}, "expected.safetensors")
save_file(engine.reconstruct().state_dict(), "expected-state.safetensors")
"""
#: Where the file is alone, and neither timm nor torchvision can be imported.
STATE = """
import sys
sys.modules.update(timm=None, torchvision=None)
import nern
from safetensors.torch import save_file
save_file(nern.load("net.nern").state_dict(), "state.safetensors")
"""
#: Where the file and the user's own module are.
INTO = """
import nern, torch
from safetensors.torch import load_file, save_file
{module}
with torch.no_grad():
    save_file({{"outputs": nern.load("net.nern", into=module)(load_file("expected.safetensors")["inputs"])}}, "into.safetensors")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cifar", type=Path, help="folder that holds train/ and test/ of CIFAR-10")
    parser.add_argument("--photographs", type=Path, help="folder with photographs of ImageNet's 1,000 classes")
    parser.add_argument("--efficientnet", type=Path, help="weights of timm's tf_efficientnet_lite0")
    parser.add_argument("--resnet18", type=Path, help="weights of torchvision's resnet18")
    parser.add_argument("--only", nargs="+", choices=WALKERS, default=list(WALKERS), help="networks to walk with")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    file = RESULTS / "walks.json"
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.exists() else {}
    for name in options.only:
        missing = [need for need in WALKERS[name].needs if getattr(options, need) is None]
        if missing:
            rows[name] = {"not run": f"needs {', '.join(f'--{need}' for need in missing)}"}
        else:
            rows[name] = walked(WALKERS[name], options)
        print(name, json.dumps(rows[name], indent=1), file=sys.stderr, flush=True)
        content = json.dumps({"machine": machine(), "rows": rows}, indent=1)
        file.write_text(content + "\n", encoding="utf-8")
        PAGE.write_text(placed(PAGE.read_text(encoding="utf-8"), "walks", text(rows)), encoding="utf-8")


def walked(walker: Walker, options: argparse.Namespace) -> dict[str, Any]:
    """Go the whole way with one network; a step that fails ends it with what was said."""
    began = computed()
    row: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        torch.manual_seed(0)  # networks are built with the same weights in every call
        try:
            row["targets"] = re.findall("asked for .*", called(walker.prepare(place, options), place))
            row |= represented(place)
            row["measured again"] = measured_again(place, row)
            row["report"] = reported(place, row)
            called(["-c", EXPECTED], place)
            row["state dict"], row["into"] = elsewhere(place, walker)
            for ending in FORMATS:
                row[ending] = exported(place, ending)
        except Failed as error:
            row["failed"] = str(error)
    return {**row, "processor seconds": round(computed() - began)}


class Failed(Exception):
    """A step that ended with an error."""


def called(words: list[str], place: Path) -> str:
    """Run Python with these words in a folder; returns what it said, and raises Failed with the end of it where it failed."""
    done = subprocess.run(
        [sys.executable, *words], cwd=place, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False
    )
    if done.returncode:
        raise Failed(f"{' '.join(words)[:80]}: {(done.stderr.strip().splitlines() or ['nothing was said'])[-1][:300]}")
    return done.stdout + done.stderr


def computed() -> float:
    """Processor seconds of this process and of those that it started."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def represented(place: Path) -> dict[str, Any]:
    """What the run gave: parameters, bytes and figures."""
    import nern

    result = json.loads((place / "run" / "result.json").read_text(encoding="utf-8"))
    entries = nern.load(place / "net.nern").entries
    tested = result["checkpoints"]["chosen"]["test"]
    figure = next(name for name in result["original"] if name in tested)
    return {
        "represented": sum(entry.numel for entry in entries if entry.layer is not None),
        "copied": sum(entry.numel for entry in entries if entry.layer is None),
        "before": result["bytes"]["original"],
        "after": (place / "net.nern").stat().st_size,
        "figure": figure,
        "original": result["original"][figure],
        "reconstruction": tested[figure],
    }


def measured_again(place: Path, row: dict[str, Any]) -> str:
    """Measure the run in another process."""
    measured = json.loads(called(["-m", "nern", "evaluate", "run", "--json"], place).splitlines()[0])
    pairs = [(measured[name][row["figure"]], row[now]) for name, now in (("original", "original"), ("reconstructed", "reconstruction"))]
    return "equal" if all(abs(a - b) <= 1e-4 * max(1e-3, abs(b)) for a, b in pairs) else f"{pairs}"


def reported(place: Path, row: dict[str, Any]) -> str:
    """Write the page of the run, and look for its figures and pictures."""
    called(["-m", "nern", "report", "run", "-o", "report.html"], place)
    page = (place / "report.html").read_text(encoding="utf-8")
    lacking = [value for value in (row["original"], row["reconstruction"]) if f"{value:.2f} %" not in page and f"{value:.4g}" not in page]
    return f"lacks {', '.join(map(str, lacking))}" if lacking else f"{page.count('<svg')} pictures"


def elsewhere(place: Path, walker: Walker) -> tuple[str, str]:
    """Load the file in another folder and process: its state dict where it is alone, and into a module where its code is, too."""
    other = place / "elsewhere"
    other.mkdir()
    (other / "net.nern").write_bytes((place / "net.nern").read_bytes())
    called(["-c", STATE], other)
    state = same_state(load_file(other / "state.safetensors"), place)
    for file in [*place.glob("*.py"), place / "expected.safetensors"]:
        (other / file.name).write_bytes(file.read_bytes())
    called(["-c", INTO.format(module=walker.module)], other)
    return state, same_outputs(load_file(other / "into.safetensors")["outputs"], place)


def exported(place: Path, ending: str) -> str:
    """Export the run in one format, read the file with that format's own reader, and compare."""
    file = place / f"net.{ending}"
    try:
        called(["-m", "nern", "export", "run", "-o", file.name], place)
    except Failed as error:
        if "pip install" in str(error):
            return "extra not installed"
        raise
    inputs = load_file(place / "expected.safetensors")["inputs"]
    if ending == "safetensors":
        return same_state(load_file(file), place)
    if ending == "pt":
        return same_state(torch.load(file, weights_only=True), place)
    if ending == "pt2":
        return same_outputs(torch.export.load(file).module()(inputs), place)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return same_outputs(torch.from_numpy(session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[0]), place)


def same_state(state: dict[str, Tensor], place: Path) -> str:
    expected = load_file(place / "expected-state.safetensors")
    if state.keys() != expected.keys():
        return "other names"
    other = [name for name, value in expected.items() if value.dtype != state[name].dtype or not torch.equal(value, state[name])]
    return f"{len(other)} entries differ" if other else "equal"


def same_outputs(outputs: Tensor, place: Path) -> str:
    """`equal`, or the largest difference from the run's own reconstruction, relative to the largest output."""
    expected = load_file(place / "expected.safetensors")["outputs"]
    if outputs.shape != expected.shape:
        return f"shape {list(outputs.shape)}"
    difference = float((outputs.detach() - expected).abs().max() / expected.abs().max())
    return "equal" if difference == 0 else f"{difference:.0e}"


def text(rows: dict[str, Any]) -> str:
    """The tables of all networks, with the command that makes them."""
    there = {name: rows[name] for name in WALKERS if name in rows}
    whole = {name: row for name, row in there.items() if "not run" not in row and "failed" not in row}
    parts = []
    head = ["network", "represented", "copied", "bytes before", "bytes after", "figure", "original", "reconstruction"]
    cells = [
        [WALKERS[name].title, *(f"{row[key]:,}" for key in ("represented", "copied", "before", "after")), with_unit(row["figure"]),
         *(f"{row[key]:.4g}" for key in ("original", "reconstruction"))]
        for name, row in whole.items()
    ]  # fmt: skip
    parts.append(table(head, cells, ["figure"]))
    keys = ["measured again", "report", "state dict", "into", *FORMATS]
    head = ["network", "measured again", "report", "state dict", "`into=`", *(f"`.{ending}`" for ending in FORMATS)]
    parts.append(table(head, [[WALKERS[name].title, *(row[key] for key in keys)] for name, row in whole.items()]))
    asked = [[WALKERS[name].title, line] for name, row in whole.items() for line in row["targets"]]
    if asked:
        parts.append(table(["network", "target"], asked, ["target"]))
    parts += [f"{WALKERS[name].title}: not run, {row['not run']}." for name, row in there.items() if "not run" in row]
    parts += [f"{WALKERS[name].title}: **failed**, {row['failed']}." for name, row in there.items() if "failed" in row]
    minutes = sum(row["processor seconds"] for row in there.values() if "not run" not in row) / 60
    about = machine()
    parts.append(f"All of it took {minutes:.0f} minutes of one processor ({about['processor']}), with torch {about['torch']}.")
    words = " ".join(f"--{option} {place}" for option, place in PLACES.items())
    return "\n\n".join([*parts, f"<!-- test: long -->\n```bash\npython -m benchmarks.walks {words}\n```"])


if __name__ == "__main__":
    main()
