import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from study.errors import StudyError
from study.plan.expand import make_plan
from study.plan.points import apply_point, grid_points
from study.plan.searches import check_search
from study.spec.load import parse_study


def study(**sections):
    return parse_study({"name": "s", **sections})


def refused(study, step=0):
    """The problems of applying the grid of a step."""
    found = {}
    for point in grid_points(study, step):
        try:
            apply_point(study, point.values, places=point.places)
        except StudyError as error:
            found.update({p.path: str(p) for p in error.problems})
    return found


def test_grid_is_the_product_in_order_and_a_list_is_a_union():
    axes = {"model.depth": {"grid": [26, 38]}, "train.epochs": {"grid": [1, 2]}}
    points = list(grid_points(study(space=[axes, {"model.width": {"grid": [0.5]}}])))
    assert [dict(p.values) for p in points] == [
        {"model.depth": 26, "train.epochs": 1},
        {"model.depth": 26, "train.epochs": 2},
        {"model.depth": 38, "train.epochs": 1},
        {"model.depth": 38, "train.epochs": 2},
        {"model.width": 0.5},
    ]
    assert points[2].places["model.depth"] == "space[0].model.depth.grid[1]"


def test_without_a_space_there_is_one_point():
    assert [dict(p.values) for p in grid_points(study())] == [{}]


def test_defaults_are_resolved():
    settings = apply_point(study(), {})
    assert (settings.model.depth, settings.memory.strategy) == (38, "reverse")
    settings = apply_point(study(model={"name": "resnet110"}), {})
    assert (settings.model.depth, settings.memory.strategy) == (110, "store")


GRIDS = st.fixed_dictionaries(
    {},
    optional={
        "model.depth": st.lists(st.sampled_from([14, 26, 38, 50]), min_size=1, unique=True),
        "train.learning_rate": st.lists(st.floats(1e-4, 1.0), min_size=1, max_size=3, unique=True),
        "precision.compute": st.lists(st.sampled_from(["fp32", "bf16"]), min_size=1, unique=True),
        "memory.strategy": st.lists(st.sampled_from(["store", "reverse"]), min_size=1, unique=True),
        "train.channels_last": st.lists(st.booleans(), min_size=1, unique=True),
    },
).filter(bool)


@given(GRIDS)
@hypothesis_settings(max_examples=40, deadline=None)
def test_settings_hold_the_values_of_their_point(grids):
    spec = study(space={path: {"grid": values} for path, values in grids.items()})
    points = list(grid_points(spec))
    count = 1
    for values in grids.values():
        count *= len(values)
    assert len({tuple(p.values.items()) for p in points}) == len(points) == count
    for point in points:
        settings = apply_point(spec, point.values, seed=7)
        assert settings.seed == 7
        for path, value in point.values.items():
            section, _, key = path.partition(".")
            assert getattr(getattr(settings, section), key) == value
        assert apply_point(spec, point.values, seed=7) == settings


def test_impossible_depth_names_its_place_and_the_legal_neighbors():
    found = refused(study(space={"model.depth": {"grid": [26, 38, 39]}}))
    assert list(found) == ["space.model.depth.grid[2]"]
    assert "has depth 14 + 12k" in found["space.model.depth.grid[2]"]
    assert "received 39; the nearest legal: 38 and 50" in found["space.model.depth.grid[2]"]


def test_depth_outside_the_space_is_named_by_its_section():
    assert list(refused(study(model={"depth": 39}))) == ["model.depth"]


def test_unknown_model():
    found = refused(study(space={"model.name": {"grid": ["revnet38", "revnet39"]}}))
    assert list(found) == ["space.model.name.grid[1]"]
    assert "received 'revnet39'; did you mean 'revnet38'?" in found["space.model.name.grid[1]"]


def test_resnet_cannot_reverse_and_the_remedy_is_a_list_of_spaces():
    models, strategies = {"grid": ["revnet38", "resnet32"]}, {"grid": ["store", "reverse"]}
    found = refused(study(space={"model.name": models, "memory.strategy": strategies}))
    assert list(found) == ["space.memory.strategy.grid[1]"]
    message = found["space.memory.strategy.grid[1]"]
    assert "resnet32 is not reversible" in message
    assert "make space a list of mappings" in message
    remedied = [
        {"model.name": {"grid": ["revnet38"]}, "memory.strategy": strategies},
        {"model.name": {"grid": ["resnet32"]}},
    ]
    assert not refused(study(space=remedied))


def test_tf32_needs_fp32():
    found = refused(study(precision={"matmul": "tf32", "compute": "bf16"}))
    assert list(found) == ["precision.matmul"]
    assert "received 'tf32'" in found["precision.matmul"]


def test_workers_share_a_batch_equally():
    found = refused(study(train={"batch_size": 64}, space={"scaling.workers": {"grid": [1, 2, 3]}}))
    assert found == {
        "train.batch_size": "train.batch_size: must be a multiple of the 3 workers that share it; "
        "received 64; the nearest is 63"
    }


def test_missing_folder(tmp_path):
    (tmp_path / "cifar10").mkdir()
    found = refused(study(data={"name": f"parquet:{tmp_path}/cifar01"}))
    assert list(found) == ["data.name"]
    assert "must name an existing folder" in found["data.name"]
    assert "did you mean 'cifar10'?" in found["data.name"]
    assert [f.name for f in tmp_path.iterdir()] == ["cifar10"]


def test_relative_folders_are_pinned(tmp_path, monkeypatch):
    for split in ("train", "test"):
        (tmp_path / "images" / split / "a").mkdir(parents=True)
        (tmp_path / "images" / split / "a" / "1.png").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    settings = apply_point(study(data={"name": "folder:images"}), {})
    assert (settings.data.name, settings.data.root) == ("folder:images", str(tmp_path))


def test_unknown_path_in_a_point():
    with pytest.raises(StudyError, match=r"model.dept: must be the dotted path.*did you mean 'model.depth'"):
        apply_point(study(), {"model.dept": 26})


def test_value_of_another_type_in_a_point():
    with pytest.raises(StudyError, match=r"train\.epochs: must be a whole number; received 'x'"):
        apply_point(study(), {"train.epochs": "x"})


def test_search_is_checked_before_it_begins():
    optuna = {"method": "optuna", "trials": 2}
    space = {"model.depth": {"int": [14, 50], "step": 6}, "train.learning_rate": {"loguniform": [0.01, 1.0]}}
    with pytest.raises(StudyError) as caught:
        check_search(study(search={**optuna, "space": space}), 0)
    assert [p.path for p in caught.value.problems] == ["search.space.model.depth.int"]
    space["model.depth"]["step"] = 12
    check_search(study(search={**optuna, "space": space}), 0)


def test_a_coupling_may_be_written_with_its_numbers_and_swept_like_any_setting():
    values = {
        "name": "couplings",
        "model": {"name": "revnet38", "coupling": {"name": "momentum", "gamma": 0.5}},
        "space": [
            {"model.coupling_numbers.gamma": {"grid": [0.25, 0.75]}},
            {"model.depth": {"grid": [26]}},
        ],
        "scales": {"other": {"model": {"coupling": {"name": "scaled", "factor": 0.5}}}},
    }
    study = parse_study(values)
    models = [trial.settings.model for trial in make_plan(study).trials]
    assert [(m.coupling, dict(m.coupling_numbers)) for m in models] == [
        ("momentum", {"gamma": gamma}) for gamma in (0.25, 0.75, 0.5)
    ]
    assert dict(study.at_scale("other").model.coupling_numbers) == {"factor": 0.5}
    with pytest.raises(StudyError, match=r"space\.model\.coupling\.grid\[1\]: must be one of the choices"):
        parse_study({"name": "c", "space": {"model.coupling": {"grid": ["additive", "midpont"]}}})
    swept = {"name": "c", "space": {"model.coupling": {"grid": ["additive", "bdia", "leapfrog"]}}}
    assert len({trial.trial_id for trial in make_plan(parse_study(swept)).trials}) == 3
