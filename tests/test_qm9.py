"""QM9: the files of the package, splits, units and errors."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from command_line import call
from molecule_files import molecule_line, shared_molecules, write_molecules
from paretorch.training.run import Run
from paretorch.workloads import TensorStream
from paretorch.workloads.formats import package_files, qm9
from paretorch.workloads.formats.qm9 import ATOMS, COLUMNS, FILES, MEV, PUBLISHED, list_molecules, read_molecules
from paretorch.workloads.qm9 import QM9
from training_runs import check_resumed_run

SIZES: dict[str, Any] = {"train": 120, "validation": 30, "test": 30}
LINE = "dsgdb9nsd_000002.xyz"


def stream(workload: QM9, split: str) -> TensorStream:
    (found,) = getattr(workload.data(), split)
    assert isinstance(found, TensorStream)
    return found


def test_qm9_no_molecule_is_in_two_splits() -> None:
    workload = QM9(root=shared_molecules(), **SIZES)
    rows = [row.flatten().tolist() for split in SIZES for row in stream(workload, split).inputs]
    assert len({tuple(row) for row in rows}) == len(rows) == 180


def test_qm9_held_out_molecules_do_not_depend_on_the_number_of_training_molecules() -> None:
    few, all_ = (QM9(root=shared_molecules(), train=train, validation=30, test=30) for train in (40, 120))
    for split in ("validation", "test"):
        atoms = [stream(workload, split).inputs for workload in (few, all_)]
        most = min(one.shape[1] for one in atoms)
        assert torch.equal(atoms[0][:, :most], atoms[1][:, :most])
    other = QM9(root=shared_molecules(), data_seed=1, **SIZES)
    assert not torch.equal(stream(other, "test").inputs, stream(all_, "test").inputs)


def test_qm9_targets_are_standardised_by_training_molecules_alone() -> None:
    workload = QM9(root=shared_molecules(), **SIZES)
    for task in workload.tasks:
        target = stream(workload, "train").targets[task]
        assert target.mean().item() == pytest.approx(0, abs=1e-5)
        assert target.std(correction=0).item() == pytest.approx(1, abs=1e-5)
        assert stream(workload, "test").targets[task].mean().item() != pytest.approx(0, abs=1e-5)


def test_qm9_errors_are_in_published_units_and_energies_are_those_of_atomisation() -> None:
    workload = QM9(root=shared_molecules(), **SIZES)
    test = stream(workload, "test")
    atoms = (test.inputs[..., 0] > 0).sum(dim=1).double()
    oxygen = (test.inputs[..., 0] == 8).sum(dim=1).double()
    energies = MEV * (-0.1 * atoms - 0.01 * oxygen)  # as the files are made
    (metric,) = workload.metrics()["U0"]
    metric.update(torch.zeros(30), test.targets["U0"])
    train = stream(workload, "train").inputs[..., 0]
    mean = (MEV * (-0.1 * (train > 0).sum(dim=1).double() - 0.01 * (train == 8).sum(dim=1).double())).mean()
    assert metric.compute() == pytest.approx((energies - mean).abs().mean().item(), rel=1e-4)
    units = {task: metric.unit for task, (metric,) in workload.metrics().items()}
    assert [units[task] for task in ("mu", "alpha", "HOMO", "ZPVE", "R2", "G", "Cv")] == [
        "D", "Bohr^3", "meV", "meV", "Bohr^2", "meV", "cal/mol/K",
    ]  # fmt: skip


def test_qm9_methane_has_the_published_energy_of_atomisation(tmp_path: Path) -> None:
    folder = write_molecules(tmp_path, (1, 1, 1))
    methane = (
        "\"dsgdb9nsd_000001.xyz\",1,\"C\",\"InChI=1S/CH4/h1H4\",5,\"[4,1,0,0,0]\",\"['C','H','H','H','H']\","
        '"[[-0.0126981359,1.0858041578,0.0080009958],[0.002150416,-0.0060313176,0.0019761204],[1.0117308433,1.4637511618,'
        '0.0002765748],[-0.540815069,1.4475266138,-0.8766437152],[-0.5238136345,1.4379326443,0.9063972942]]","[-0.535689]",'
        '"[1341.307]",157.7118,157.70997,157.70699,0.,13.21,-0.3877,0.1171,0.5048,35.3641,0.044749,-40.47893,-40.476062,'
        "-40.475117,-40.498597,6.469"
    )
    text = (folder / FILES[0]).read_text().splitlines()
    (folder / FILES[0]).write_text("\n".join([text[0], methane]))
    found = read_molecules(list_molecules(folder), [0])
    assert found.atoms[0, :, 0].tolist() == [6, 1, 1, 1, 1]
    assert found.atoms[0, 2, 1:].tolist() == pytest.approx([1.0117308433, 1.4637511618, 0.0002765748])
    values = dict(zip(COLUMNS, found.properties[0].tolist(), strict=True))
    calories = 23.060547830619  # kcal/mol per eV
    assert values["U0"] / 1000 * calories == pytest.approx(-395.999, abs=0.01)  # published: -395.9996 kcal/mol
    assert values["HOMO"] == pytest.approx(-10_549.9, abs=0.1)
    assert values["alpha"] == 13.21


def test_qm9_molecules_keep_the_order_of_the_selection(tmp_path: Path) -> None:
    files = list_molecules(write_molecules(tmp_path, (3, 3, 3)))
    whole = read_molecules(files, range(9))
    some = read_molecules(files, [7, 0, 4])
    assert torch.equal(some.properties, whole.properties[[7, 0, 4]])
    most = some.atoms.shape[1]
    assert torch.equal(some.atoms, whole.atoms[[7, 0, 4], :most])


def test_qm9_run_resumes_exactly(tmp_path: Path) -> None:
    options = {"root": shared_molecules(), "encoder": "filters", "width": 8, **SIZES}
    check_resumed_run(Run("qm9", options, method="IMTLG()", epochs=3, batch_size=40), tmp_path, 2)


DAMAGES: list[tuple[Callable[[str], str], str]] = [
    (lambda text: text.replace("ZPVE_au", "ZPE"), "line 1: there is no column 'ZPVE_au', which qm9pack 1.0.3 has: pip install"),
    (lambda text: text.replace("XYZ_file,Index", "Index,XYZ_file"), "line 1: expected 'XYZ_file' as the first column"),
    (lambda text: text.replace("['H'", "['Xe'").replace("['C'", "['Xe'"), r"line \d+: molecule .* has the elements \['Xe'\]"),
    (lambda text: text.replace(LINE, "dsgdb9nsd_000003.xyz"), "expected each molecule once, got dsgdb9nsd_000003.xyz again"),
    (lambda text: text.replace("]]\",", "],[1,2,3]]\",", 1), r"has 1 elements, 6 coordinates and N_atoms 1: expected 1 to"),
    (lambda text: text.replace("]]\",", ",nan]]\",", 1).replace("[[", "[[", 1), "expected three coordinates of each atom"),
    (lambda text: text.rsplit(",", 1)[0] + ",inf\n", "has a number that is not finite"),
    (lambda text: text.rsplit(",", 3)[0] + "\n", r"line 5: expected a molecule as in qm9pack 1.0.3 \(list index"),
    (lambda text: "", "line 1: there is no column"),
    (lambda text: re.sub(r"\[\[(-?\d)\.", r"[[\1 ", text, count=1), "line 2: expected a molecule"),
    (lambda text: re.sub(r"(\[\[[^\]]*),([^\],]*\])", r"\1],[\2", text, count=1), "line 2: expected a molecule"),
    (lambda text: text.replace(",1.5\n", ",1_5\n", 1), "line 2: expected a molecule as in qm9pack 1.0.3 .'1_5' is not a number"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_qm9_errors_name_file_and_line(damage: Callable[[str], str], message: str, tmp_path: Path) -> None:
    folder = write_molecules(tmp_path / "qm9", (4, 3, 3))
    path = folder / FILES[0]
    path.write_text(damage(path.read_text()))
    with pytest.raises(ValueError, match=message) as caught:
        QM9(root=str(tmp_path), train=6, validation=2, test=2).data()
    assert "\n" not in str(caught.value)


def test_qm9_empty_molecule_is_an_error(tmp_path: Path) -> None:
    folder = write_molecules(tmp_path / "qm9", (4, 3, 3))
    text = (folder / FILES[1]).read_text().splitlines()
    text[1] = molecule_line(900, [], np.empty((0, 3)))
    (folder / FILES[1]).write_text("\n".join(text))
    with pytest.raises(
        ValueError, match=r"qm9_part2.csv, line 2: molecule .* has 0 elements, 0 coordinates and N_atoms 0"
    ):
        QM9(root=str(tmp_path), train=6, validation=2, test=2).data()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": 171, "validation": 5, "test": 5}, "has 180 molecules, the options require 5 for test"),
        ({"train": 170, "validation": 10}, "the options require 0 for test"),
        ({"train": 1}, "train is at least 2 molecules"),
        ({"test": 0}, "test is at least 1 molecules"),
        ({"encoder": "schnet"}, "encoder is one of edge_network, filters, got 'schnet'"),
    ],
)
def test_qm9_errors_describe_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QM9(root=shared_molecules(), **options).data()


def test_qm9_without_package_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_files, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"^qm9pack is not installed: pip install 'paretorch\[data\]'$"):
        QM9(root=str(tmp_path)).require()


def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small package qm9pack on the path; its code fails if it is imported."""
    folder = write_molecules(tmp_path / "packages" / "qm9pack" / "data", (4, 3, 3))
    (folder.parent / "__init__.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    return folder


def test_qm9_package_is_read_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = installed(tmp_path, monkeypatch)
    monkeypatch.setattr(qm9, "PUBLISHED", 10)
    workload = QM9(root=str(tmp_path / "data"), train=6, validation=2, test=2)
    assert str(workload.data().facts["read from"]).startswith("qm9pack")
    assert qm9.find_qm9(tmp_path / "data") == folder


def test_qm9_package_with_another_number_of_molecules_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = installed(tmp_path, monkeypatch)
    with pytest.raises(ValueError, match=rf"has 10 molecules, expected {PUBLISHED:,}: pip install .*qm9pack==1.0.3"):
        QM9(root=str(tmp_path / "data")).data()
    (folder / FILES[0]).unlink()
    with pytest.raises(FileNotFoundError, match=r"has no file data/qm9_part1\.csv"):
        QM9(root=str(tmp_path / "data")).require()


def test_qm9_data_check_counts_molecules_and_names_problems(tmp_path: Path) -> None:
    folder = write_molecules(tmp_path / "qm9", (4, 3, 3))
    code, text = call("data", "check", "qm9(train=6, validation=2, test=2)", "--root", str(tmp_path))
    assert code == 0
    assert "10 molecules; published are 130,831" in text
    assert "10 molecules read, of up to " in text
    path = folder / FILES[2]
    path.write_text(path.read_text().replace("'N'", "'Si'").replace("'C'", "'Si'").replace("'O'", "'Si'"))
    code, text = call("data", "check", "qm9(train=6, validation=2, test=2)", "--root", str(tmp_path))
    assert code == 1
    assert "has the elements ['Si']" in text


@pytest.mark.long
def test_qm9_package_has_the_published_molecules() -> None:
    pytest.importorskip("qm9pack")
    files = list_molecules(qm9.find_qm9(Path("nowhere")))
    assert len(files.names) == PUBLISHED
    found = read_molecules(files, range(0, PUBLISHED, 100))
    heavy = (found.atoms[..., 0] > 1).sum(dim=1)
    assert int(heavy.max()) <= 9
    assert bool((found.properties[:, list(COLUMNS).index("U0")] < 0).all())
    assert set(ATOMS["U0"]) == {"H", "C", "N", "O", "F"}
