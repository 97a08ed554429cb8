"""The data of the attention viewer: what is packed is what was measured, and what is left out is said."""

import base64
import zlib
from pathlib import Path

import fabricate
import numpy as np
import pytest

from batchscope.report.spec import ReportSpec
from batchscope.report.viewer import viewer_section


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[ReportSpec, Path]:
    spec = fabricate.spec()
    folder = tmp_path_factory.mktemp("study")
    return spec, fabricate.study_folder(folder, spec, examples=256)


def test_levels_unpack_to_the_maps_of_the_run(study: tuple[ReportSpec, Path]) -> None:
    spec, folder = study
    section = viewer_section(spec, folder)
    assert section and section.kept == "" and section.reasons == []
    runs = {cell.run for cell in spec.cells}
    maps = section.data["maps"]
    assert set(maps) == {f"{run} {name}" for run in runs for name in spec.review_names}
    assert len(section.data["runs"]) == len(spec.cells)
    run = "modernbert/bs64/sqrt/seed2"
    with np.load(folder / "runs" / run / "attention/attention.npz") as arrays:
        for name in spec.review_names:
            found = maps[f"{run} {name}"]
            levels = np.frombuffer(zlib.decompress(base64.b64decode(found["levels"])), np.uint8)
            assert levels.tobytes() == arrays[f"{name}.levels"].tobytes()
            assert found["largest"] == pytest.approx(arrays[f"{name}.largest"].ravel(), rel=1e-3)
            assert sum(found["rollout"]) == pytest.approx(1, abs=1e-3)
    texts = section.data["models"]["modernbert"]
    assert texts["windows"] == [None, 4, 4, None, 4]
    assert all(len(text["tokens"]) == len(text["words"]) == 24 for text in texts["texts"].values())


@pytest.mark.parametrize("share", [0.9, 0.4, 0.03])
def test_where_there_is_no_room_whole_grids_are_left_out_and_the_page_says_so(
    study: tuple[ReportSpec, Path], share: float
) -> None:
    spec, folder = study
    everything = viewer_section(spec, folder)
    size = sum(len(one["levels"]) for one in everything.data["maps"].values())
    section = viewer_section(spec, folder, int(share * size))
    kept = list(section.data["maps"])
    assert sum(len(one["levels"]) for one in section.data["maps"].values()) <= share * size
    assert (
        f"holds {len(kept)} of the {len(everything.data['maps'])} sets of maps, one per run and review" in section.kept
    )
    first_seed = list(dict.fromkeys(cell.run for cell in spec.cells if cell.seed == spec.seeds[0]))
    wanted = [f"{run} {spec.review_names[0]}" for run in first_seed]
    if share < 0.1:
        assert kept == wanted[: len(kept)] and 0 < len(kept) < len(wanted)
    else:
        assert len(kept) % len(wanted) == 0 and kept[: len(wanted)] == wanted


def test_a_model_without_attention_has_a_reason_and_no_maps(tmp_path: Path) -> None:
    spec = fabricate.spec(seeds=[1])
    fabricate.study_folder(tmp_path, spec, examples=256, no_attention={"bert": "It gives none."})
    section = viewer_section(spec, tmp_path)
    assert section and section.reasons == ["bert: It gives none."]
    assert set(section.data["models"]) == {"modernbert"} == {run["model"] for run in section.data["runs"]}
    both = tmp_path / "both"
    fabricate.study_folder(both, spec, examples=256, no_attention=dict.fromkeys(spec.model_names, "None."))
    assert viewer_section(spec, both) is None
