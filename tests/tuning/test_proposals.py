import functools
import inspect
import itertools
import json
import math
import random
import warnings

import numpy as np
import pytest
from keras_tuner import HyperParameters, Objective, oracles
from scipy.optimize import approx_fprime
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern

from tuning.oracles import ALGORITHMS, promises
from tuning.proposals import DONE, WAIT, Proposal, Proposals
from tuning.space import Space


def mixed():
    """Continuous, stepped, whole, chosen and conditional."""
    hp = HyperParameters()
    hp.Float("rate", 1e-5, 1e-1, sampling="log", default=1e-3)
    hp.Choice("optimizer", ["adam", "momentum"])
    with hp.conditional_scope("optimizer", ["momentum"]):
        hp.Float("far", 1e-3, 1e-1, sampling="log", default=0.1)
    hp.Float("dropout", 0.2, 0.5, step=0.1, default=0.3)
    hp.Int("units", 16, 512, sampling="log", default=64)
    return hp


def small():
    """2 * 4 + 1 combinations."""
    hp = HyperParameters()
    hp.Boolean("deep")
    with hp.conditional_scope("deep", [True]):
        hp.Float("dropout", 0.2, 0.5, step=0.1, default=0.3)
        hp.Int("batch", 16, 32, sampling="log", step=2)
    hp.Fixed("always", 3)
    return hp


def one():
    hp = HyperParameters()
    hp.Float("rate", 0.0, 1.0, default=0.5)
    return hp


def proposals(space, algorithm, *, direction="max", seed=0, **options):
    hp = space()
    return Proposals(hp, dict(hp.values), algorithm=algorithm, objective="v", direction=direction, seed=seed, **options)


def score(values):
    """Best at a rate of 10 ** -2.5, momentum and 512 units."""
    found = -((math.log10(values["rate"]) + 2.5) ** 2) + values["units"] / 512 + (values["optimizer"] == "momentum")
    return found - values["dropout"]


def run(search, trials, *, at_once=3, failing=0.15, seed=1):
    """What happens in a search of which some trials fail and which ends them in any order."""
    chance = random.Random(seed)
    events, running = [], []
    while len(events) - len(running) < 2 * trials:
        made = sum(isinstance(event, Proposal) for event in events)
        proposal = search.propose() if len(running) < at_once and made < trials else WAIT
        if isinstance(proposal, Proposal):
            events.append(proposal)
            running.append(proposal)
        if proposal is DONE and not running:
            break
        assert proposal is not WAIT or running, "waits for nothing"
        if running and (proposal is WAIT or proposal is DONE or chance.random() < 0.4):
            ended = running.pop(chance.randrange(len(running)))
            told = (ended.trial, None if chance.random() < failing else score(ended.values))
            search.tell(*told)
            events.append(told)
    return events


def read_back(events):
    """As a journal gives them."""
    found = []
    for event in events:
        plain = json.loads(json.dumps(vars(event) if isinstance(event, Proposal) else event))
        found.append(Proposal(**plain) if isinstance(plain, dict) else tuple(plain))
    return found


@functools.cache
def history(algorithm):
    """A search that several tests look at."""
    return run(proposals(mixed, algorithm, epochs=9), 12 if algorithm == "bayesian" else 25)


def to_the_end(search):
    """All proposals, nothing told."""
    made = []
    while (proposal := search.propose()) is not DONE:
        assert proposal is not WAIT
        made.append(proposal)
    return made


def proposed(events):
    return [event for event in events if isinstance(event, Proposal)]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_defaults_come_first_and_never_again(algorithm):
    defaults = {"rate": 1e-3, "optimizer": "adam", "dropout": 0.3, "units": 64}
    made = proposed(history(algorithm))

    assert made[0] == Proposal("0000", defaults, 1 if algorithm == "hyperband" else None)
    assert [proposal.trial for proposal in made] == [f"{number:04d}" for number in range(len(made))]
    fresh = [tuple(proposal.values.items()) for proposal in made if proposal.continues is None]
    assert len(set(fresh)) == len(fresh)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_other_defaults_than_the_space_has_come_first(algorithm):
    defaults = {"rate": 0.01, "optimizer": "momentum", "far": 0.05, "dropout": 0.5, "units": 100}
    search = Proposals(mixed(), defaults, algorithm=algorithm, objective="v", direction="max")

    assert search.propose().values == defaults
    assert search.propose().values != defaults


@pytest.mark.parametrize("algorithm", ["bayesian", "random", "hyperband"])
def test_a_seed_gives_the_same_proposals_again_and_another_seed_others(algorithm):
    first, again, other = (run(proposals(mixed, algorithm, seed=seed), 9) for seed in (0, 0, 1))

    assert first == again
    assert proposed(first)[1:] != proposed(other)[1:]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_chance_of_the_program_is_neither_used_nor_changed(algorithm):
    random.seed(5)
    np.random.seed(5)
    before = random.getstate(), np.random.get_state()[1].tolist()
    run(proposals(mixed, algorithm), 8)

    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_neighbouring_seeds_have_no_proposal_in_common_but_the_first():
    first, other = ({search.propose().values["rate"] for _ in range(50)} for search in two("random", seeds=(0, 1)))

    assert len(first) == len(other) == 50
    assert first & other == {0.5}


def two(algorithm, seeds=(0, 0)):
    return [proposals(one, algorithm, seed=seed) for seed in seeds]


@pytest.mark.parametrize("algorithm", ["random", "grid"])
def test_random_and_grid_depend_on_no_result(algorithm):
    alone = [proposal for proposal in proposed(run(proposals(mixed, algorithm), 20, at_once=1))]
    many = [proposal for proposal in proposed(run(proposals(mixed, algorithm), 20, at_once=7, seed=2, failing=0.5))]

    assert alone == many


def test_a_grid_has_every_combination_once():
    search = proposals(small, "grid")
    made = to_the_end(search)

    shallow = {"deep": False, "always": 3}
    deep = [
        {"deep": True, "dropout": dropout, "batch": batch, "always": 3}
        for dropout, batch in itertools.product((0.2, 0.3, 0.4, 0.5), (16, 32))
    ]
    assert search.size == len(made) == 9
    assert sorted(json.dumps(proposal.values, sort_keys=True) for proposal in made) == sorted(
        json.dumps(values, sort_keys=True) for values in [shallow, *deep]
    )
    assert search.propose() is DONE


def test_a_grid_takes_ten_values_of_a_range_and_the_default():
    made = [proposal.values["rate"] for proposal in to_the_end(proposals(one, "grid"))]

    assert sorted(made) == sorted([*np.round(np.arange(10) / 10 + 0.05, 2).tolist(), 0.5])


@pytest.mark.parametrize("algorithm", ["random", "bayesian"])
def test_a_small_space_is_tried_whole_and_nothing_twice(algorithm):
    search = proposals(small, algorithm)
    made = []
    while (proposal := search.propose()) is not DONE and len(made) < 20:
        made.append(json.dumps(proposal.values, sort_keys=True))
        search.tell(proposal.trial, len(made) / 10)

    assert len(made) == len(set(made)) == search.size == 9


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_search_killed_at_any_point_goes_on_as_if_it_had_not_been(algorithm):
    events = read_back(history(algorithm))
    assert any(event[1] is None for event in events if not isinstance(event, Proposal))
    for killed in range(len(events)):
        search = proposals(mixed, algorithm, epochs=9)
        search.rebuild(events[:killed])
        goes_on(search, events[killed : killed + (2 if algorithm == "bayesian" else 10)])


@pytest.mark.slow
@pytest.mark.long
def test_a_long_bayesian_search_killed_at_any_point_goes_on_as_if_it_had_not_been():
    events = read_back(run(proposals(mixed, "bayesian"), 25))
    for killed in range(len(events)):
        search = proposals(mixed, "bayesian")
        search.rebuild(events[:killed])
        goes_on(search, events[killed : killed + 5])


def goes_on(search, events):
    for event in events:
        if isinstance(event, Proposal):
            assert search.propose() == event
        else:
            search.tell(*event)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_values_are_plain(algorithm):
    for proposal in proposed(history(algorithm)):
        assert {type(value) for value in proposal.values.values()} <= {int, float, str, bool}
        assert type(proposal.values["units"]) is int
        assert not any(name.startswith("tuner/") for name in proposal.values)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_nothing_is_written_or_printed(algorithm, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run(proposals(mixed, algorithm), 8)

    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


# Values that make no difference


def plain_ifs(hp):
    """12 combinations, of which 1 + 1 + 2 * 2 differ in what is asked for."""
    fields = {"optimizer": hp.Choice("optimizer", ["adam", "sgd", "momentum"])}
    if fields["optimizer"] == "momentum":
        fields["momentum"] = hp.Choice("momentum", [0.5, 0.9])
        fields["epochs"] = hp.Choice("epochs", [1, 2])
    return fields


def scoped_ifs(hp):
    fields = {"optimizer": hp.Choice("optimizer", ["adam", "sgd", "momentum"])}
    if fields["optimizer"] == "momentum":
        with hp.conditional_scope("optimizer", ["momentum"]):
            fields["momentum"] = hp.Choice("momentum", [0.5, 0.9])
            fields["epochs"] = hp.Choice("epochs", [1, 2])
    return fields


def ranges(hp):
    """As `plain_ifs`, and without end where the optimizer is momentum."""
    fields = {"optimizer": hp.Choice("optimizer", ["adam", "sgd", "momentum"])}
    if fields["optimizer"] == "momentum":
        fields["momentum"] = hp.Float("momentum", 0.5, 0.99)
    return fields


def scoped_in_plain_ifs(hp):
    fields = {"epochs": hp.Choice("epochs", [1, 2])}
    if fields["epochs"] == 2:
        fields["optimizer"] = hp.Choice("optimizer", ["adam", "sgd", "momentum"])
        if fields["optimizer"] == "momentum":
            with hp.conditional_scope("optimizer", ["momentum"]):
                fields["momentum"] = hp.Choice("momentum", [0.5, 0.9])
    return fields


def layers(hp):
    """A plain loop, as in many examples of KerasTuner."""
    return {"epochs": sum(hp.Choice(f"units_{i}", [1, 2, 3, 4, 5, 6]) for i in range(hp.Int("layers", 1, 5)))}


def sparing(function, algorithm, **options):
    """A space taken apart, and proposals that know of its idle values."""
    space = Space(function, "convnet")
    common = {"algorithm": algorithm, "objective": "v", "direction": "max", "idle": space.idle}
    return space, Proposals(space.hyperparameters, space.defaults, **{**common, **options})


def asked_of(space, proposal):
    idle = space.idle(proposal.values)
    return {name: value for name, value in proposal.values.items() if name not in idle}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_nothing_is_trained_again_with_other_values_that_make_no_difference(algorithm):
    space, search = sparing(plain_ifs, algorithm, epochs=3)
    made = proposed(run_all_of(search))
    trained = [asked_of(space, proposal) for proposal in made if proposal.continues is None]

    assert all(set(proposal.values) == {"optimizer", "momentum", "epochs"} for proposal in made)
    assert sorted(map(str, trained)) == sorted(
        map(str, [space.fields(proposal.values) for proposal in proposed(run_all_of(sparing(scoped_ifs, "grid")[1]))])
    )
    assert len(trained) == 6 and (algorithm == "hyperband") == any(proposal.continues for proposal in made)


def run_all_of(search):
    """Events of a search that runs one trial at a time until nothing is left."""
    events = []
    while isinstance(proposal := search.propose(), Proposal):
        told = (proposal.trial, len(events) / 100)
        search.tell(*told)
        events += [proposal, told]
    assert proposal is DONE
    return events


def test_a_grid_keeps_its_order_without_what_is_the_same():
    space, search = sparing(plain_ifs, "grid")

    assert [tuple(asked_of(space, proposal).values()) for proposal in to_the_end(search)] == [
        ("adam",),
        ("sgd",),
        ("momentum", 0.5, 1),
        ("momentum", 0.5, 2),
        ("momentum", 0.9, 1),
        ("momentum", 0.9, 2),
    ]


def test_a_grid_passes_over_conditional_values_that_are_idle():
    space, search = sparing(scoped_in_plain_ifs, "grid")

    assert [tuple(asked_of(space, proposal).values()) for proposal in to_the_end(search)] == [
        (1,),
        (2, "adam"),
        (2, "sgd"),
        (2, "momentum", 0.5),
        (2, "momentum", 0.9),
    ]


def test_a_grid_does_not_look_at_every_idle_combination():
    space, search = sparing(layers, "grid")
    compared = []
    duplicate = search._oracle._duplicate
    search._oracle._duplicate = lambda values: compared.append(values) or duplicate(values)
    made = [asked_of(space, search.propose()) for _ in range(6 + 36 + 1)]

    assert [len(values) for values in made] == [2] * 6 + [3] * 36 + [4]  # layers, and units of each
    assert len(compared) < 300  # of 6 ** 5 and more


@pytest.mark.parametrize("algorithm", ["random", "bayesian", "hyperband"])
def test_choices_that_were_tried_are_not_drawn_again_beside_idle_numbers(algorithm):
    space, search = sparing(ranges, algorithm, epochs=9)
    made = [proposal for proposal in proposed(run_of(search, 14)) if proposal.continues is None]
    trained = [tuple(asked_of(space, proposal).items()) for proposal in made]

    assert len(made) >= 9 and len(set(trained)) == len(trained)
    assert sum(len(asked) == 2 for asked in trained) == len(made) - 2  # all but adam and sgd


def run_of(search, trials):
    """Events of a search that runs one trial at a time."""
    events = []
    for number in range(trials):
        events += [proposal := search.propose(), (proposal.trial, number / 100)]
        search.tell(*events[-1])
    return events


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_search_with_idle_values_goes_on_as_if_it_had_not_been_killed(algorithm):
    function = plain_ifs if algorithm == "grid" else ranges
    events = read_back(run_of(sparing(function, algorithm, epochs=4)[1], 6 if algorithm == "grid" else 12))
    for killed in range(0, len(events), 3):
        _, search = sparing(function, algorithm, epochs=4)
        search.rebuild(events[:killed])
        goes_on(search, events[killed : killed + 6])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_space_without_idle_values_is_searched_as_ever(algorithm):
    assert run(proposals(mixed, algorithm, epochs=9, idle=lambda values: []), 12) == run(
        proposals(mixed, algorithm, epochs=9), 12
    )
    assert proposed(run_all_of(sparing(scoped_ifs, algorithm, epochs=2)[1])) == proposed(
        run_all_of(sparing(scoped_ifs, algorithm, epochs=2, idle=None)[1])
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_where_the_space_raises_every_value_counts(algorithm):
    def idle(values):
        if values["deep"]:
            raise RuntimeError("no such network")
        return {"batch"}

    def space():
        hp = HyperParameters()
        hp.Boolean("deep")
        hp.Choice("batch", [16, 32, 64])
        return hp

    made = proposed(run_all_of(proposals(space, algorithm, epochs=2, idle=idle)))
    fresh = [tuple(proposal.values.values()) for proposal in made if proposal.continues is None]
    assert sorted(fresh) == [(False, 16), (True, 16), (True, 32), (True, 64)]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_space_is_asked_once_for_each_difference(algorithm):
    space = Space(plain_ifs, "convnet")
    asked = []
    _, search = sparing(plain_ifs, algorithm, epochs=2, idle=lambda values: asked.append(values) or space.idle(values))
    run_all_of(search)
    several = 2 if algorithm == "hyperband" else 1  # whether its first round can be filled is found out beforehand

    assert 6 <= len(asked) <= 6 * several
    assert not any(name.startswith("tuner/") for values in asked for name in values)


def test_hyperband_refuses_a_first_round_of_which_some_would_be_the_same():
    with pytest.raises(ValueError, match="first round has 9 trials, and the space has 6 combinations.*'grid'"):
        sparing(plain_ifs, "hyperband", epochs=9)
    assert sparing(plain_ifs, "grid", epochs=9)[1].size == 12


# Bayesian


@pytest.mark.slow
@pytest.mark.long
def test_a_bayesian_step_is_keras_tuners():
    search = proposals(mixed, "bayesian")
    for _ in range(8):
        before = dict(search._oracle.trials)
        proposal = search.propose()
        search.tell(proposal.trial, score(proposal.values))
    stock = oracles.BayesianOptimizationOracle(
        objective=search._oracle.objective,
        hyperparameters=search._oracle.hyperparameters,
        seed=search._oracle.seed,
        num_initial_points=5,
    )
    stock.trials = before
    with warnings.catch_warnings(action="ignore"):
        values = stock.populate_space("0007")["values"]

    assert proposal.values == {
        name: pytest.approx(value, rel=1e-3) if isinstance(value, float) else value for name, value in values.items()
    }


@pytest.mark.parametrize("direction", ["max", "min"])
def test_a_bayesian_search_goes_where_the_direction_says(direction):
    def space():
        hp = HyperParameters()
        hp.Int("units", 16, 512, sampling="log", default=64)
        return hp

    search = proposals(space, "bayesian", direction=direction)
    tried = []
    for _ in range(8):
        proposal = search.propose()
        tried.append(proposal.values["units"])
        search.tell(proposal.trial, math.log(tried[-1]))

    assert {"max": 512, "min": 16}[direction] in tried[4:]
    assert all(16 <= units <= 512 for units in tried)  # at the upper end KerasTuner itself gives 513


def test_a_bayesian_search_starts_with_four_random_points():
    ends = []
    for search, sign in zip(two("bayesian"), (1, -1), strict=True):
        for _ in range(4):
            proposal = search.propose()
            search.tell(proposal.trial, sign * proposal.values["rate"])
        ends.append((proposal, search.propose()))

    assert ends[0][0] == ends[1][0]
    assert ends[0][1] != ends[1][1]


def test_running_trials_keep_a_bayesian_search_from_their_place():
    search = proposals(one, "bayesian")
    for _ in range(6):
        proposal = search.propose()
        search.tell(proposal.trial, -((proposal.values["rate"] - 0.3) ** 2))
    together = [search.propose().values["rate"] for _ in range(4)]

    assert min(abs(a - b) for a, b in itertools.combinations(together, 2)) > 1e-3


def test_failures_alone_leave_a_bayesian_search_random():
    search = proposals(one, "bayesian")
    made = []
    for _ in range(12):
        proposal = search.propose()
        search.tell(proposal.trial, None)
        made.append(proposal)

    assert made == [proposals_random.propose() for proposals_random in [proposals(one, "random")] for _ in range(12)]


def test_the_promise_of_a_point_is_that_of_scikit_learn():
    chance = np.random.RandomState(0)
    x = chance.uniform(size=(12, 3))
    process = GaussianProcessRegressor(Matern(nu=2.5), alpha=1e-4, normalize_y=True, random_state=0)
    process.fit(x, np.sin(x @ [1, 0.5, 0.2]) * 40 + 7)
    promise = promises(process, 2.6)
    for point in chance.uniform(size=(10, 3)):
        mean, deviation = process.predict(point[None], return_std=True)
        value, slope = promise(point)

        assert value == pytest.approx(mean[0] - 2.6 * deviation[0], rel=1e-9)
        assert slope == pytest.approx(approx_fprime(point, lambda x: promise(x)[0]), rel=1e-4, abs=1e-4)


# Hyperband


def rounds(search, scores, trials):
    """Proposals of a search that runs one trial at a time; `scores` gives what comes of each."""
    made = []
    for _ in range(trials):
        proposal = search.propose()
        assert isinstance(proposal, Proposal)
        made.append(proposal)
        search.tell(proposal.trial, scores(proposal))
    return made


@pytest.mark.parametrize("direction", ["max", "min"])
def test_hyperband_goes_on_with_the_best_of_each_round(direction):
    scores = dict(
        zip((f"{number:04d}" for number in range(13)), (5, 2, 9, 1, 8, 3, 7, 4, 6, 20, 10, 30, 0), strict=True)
    )
    made = rounds(
        proposals(one, "hyperband", direction=direction, epochs=9), lambda proposal: scores[proposal.trial], 13
    )

    assert [proposal.epochs for proposal in made] == [1] * 9 + [3] * 3 + [9]
    assert all(proposal.continues is None for proposal in made[:9])
    best = ["0002", "0004", "0006"] if direction == "max" else ["0003", "0001", "0005"]
    assert [proposal.continues for proposal in made[9:12]] == best
    assert made[12].continues == ("0011" if direction == "max" else "0010")
    values = {proposal.trial: proposal.values for proposal in made}
    assert all(proposal.values == values[proposal.continues] for proposal in made[9:])


def test_hyperband_has_brackets_of_longer_trainings_and_begins_anew():
    made = rounds(proposals(one, "hyperband", epochs=9), lambda proposal: proposal.values["rate"], 36)
    starts = [proposal.epochs for proposal in made if proposal.continues is None]

    assert starts == [1] * 9 + [3] * 5 + [9] * 3 + [1] * 9


@pytest.mark.parametrize("failed", range(1, 10))
def test_failed_trials_do_not_hold_hyperband_up(failed):
    made = rounds(
        proposals(one, "hyperband", epochs=9),
        lambda proposal: None if int(proposal.trial) < failed else int(proposal.trial),
        9 + 5 + 3 + 9,
    )
    first = [proposal for proposal in made if proposal.continues in {f"{number:04d}" for number in range(9)}]

    assert [proposal.continues for proposal in first] == ["0008", "0007", "0006"][: max(9 - failed, 0)]
    assert [proposal.epochs for proposal in made].count(9) >= 3  # later brackets begin


def test_a_failure_in_the_second_round_leaves_the_others_in_the_third():
    made = rounds(
        proposals(one, "hyperband", epochs=9),
        lambda proposal: None if proposal.trial == "0009" else -int(proposal.trial),
        13,
    )

    assert made[9].continues == "0000"
    assert (made[12].continues, made[12].epochs) == ("0010", 9)


def test_hyperband_goes_on_when_everything_fails():
    made = rounds(proposals(one, "hyperband", epochs=9), lambda proposal: None, 50)

    assert all(proposal.continues is None for proposal in made)


def chosen(number):
    def space():
        hp = HyperParameters()
        hp.Choice("rate", [1 + choice for choice in range(number)])
        return hp

    return space


@pytest.mark.parametrize("failing", [0, 0.3])
@pytest.mark.parametrize("number", [9, 20])
def test_hyperband_waits_only_for_trials_that_run_and_then_is_done(number, failing, monkeypatch):
    monkeypatch.setitem(globals(), "score", lambda values: values["rate"])
    search = proposals(chosen(number), "hyperband", epochs=9)
    events = run(search, 100, failing=failing)
    made = proposed(events)

    assert sorted(proposal.values["rate"] for proposal in made if not proposal.continues) == list(range(1, number + 1))
    assert search.propose() is DONE
    for killed in range(0, len(events), 7):  # having waited leaves no trace
        again = proposals(chosen(number), "hyperband", epochs=9)
        again.rebuild(events[:killed])
        goes_on(again, events[killed : killed + 10])


def test_hyperband_refuses_a_space_that_its_first_round_exhausts():
    with pytest.raises(ValueError, match="first round has 9 trials, and the space has 8 combinations.*'grid'"):
        proposals(chosen(8), "hyperband", epochs=9)


# What is refused


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"algorithm": "annealing"}, "one of bayesian, random, grid, hyperband. Received: algorithm='annealing'"),
        ({"direction": "up"}, "max or min. Received: direction='up'"),
        ({"seed": -1}, "`seed` must be a whole number of at least 0. Received: seed=-1"),
        ({"seed": True}, "seed=True"),
        ({"epochs": 0}, "`epochs` must be a whole number of at least 1. Received: epochs=0"),
        ({"defaults": {}}, "each hyperparameter that is active"),
        ({"defaults": {"rate": 2.0}}, "a value in its range.*rate"),
        ({"defaults": {"rate": 0.5, "other": 1}}, "no others.*other"),
    ],
)
def test_arguments_out_of_bounds_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Proposals(
            one(), **{"defaults": {"rate": 0.5}, "algorithm": "random", "objective": "v", "direction": "max", **wrong}
        )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_only_running_trials_can_be_told_and_only_numbers(algorithm):
    search = proposals(mixed, algorithm)
    search.propose()
    for wrong in (math.nan, math.inf, "0.5"):
        with pytest.raises(ValueError, match="finite number, or None"):
            search.tell("0000", wrong)
    with pytest.raises(ValueError, match="one that runs: 0000. Received: trial='0001'"):
        search.tell("0001", 0.5)
    search.tell("0000", np.float32(0.5))
    with pytest.raises(ValueError, match="none does"):
        search.tell("0000", 0.5)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_rebuilt_search_names_the_first_proposal_that_differs(algorithm):
    events = list(history(algorithm))
    place = [isinstance(event, Proposal) for event in events].index(True, 14)
    written = events[place]
    changed = {**written.values, "units": 1000}
    events[place] = Proposal(written.trial, changed, written.epochs, written.continues)

    with pytest.raises(ValueError, match=f"Trial {written.trial} comes out differently.*another version"):
        proposals(mixed, algorithm, epochs=9).rebuild(events)


def test_only_fresh_proposals_are_rebuilt():
    search = proposals(one, "random")
    search.propose()

    with pytest.raises(ValueError, match="Only fresh proposals"):
        search.rebuild([])


# What of KerasTuner is used beyond its public face


def test_keras_tuner_is_still_made_as_it_is_used_here():
    space, goal = mixed(), Objective("v", "max")
    made = {
        name: getattr(oracles, name)(objective=goal, hyperparameters=space, seed=1)
        for name in dir(oracles)
        if name.endswith("Oracle")
    }
    assert len(made) == 4
    for oracle in made.values():
        for name in (
            "_random_values",
            "_duplicate",
            "_compute_values_hash",
            "_save_trial",
            "save",
            "create_trial",
            "update_trial",
            "end_trial",
        ):
            assert callable(getattr(oracle, name))
        assert {"_seed_state", "_max_collisions", "max_trials", "max_consecutive_failed_trials"} <= set(vars(oracle))
        assert {"trials", "ongoing_trials"} <= set(vars(oracle))
        assert "self._seed_state" in inspect.getsource(oracle._random_values)
    assert "self._compute_values_hash" in inspect.getsource(oracle._duplicate)
    assert callable(made["GridSearchOracle"]._get_next_combination)
    bayesian = made["BayesianOptimizationOracle"]
    assert {"_random_state", "gpr", "beta", "num_initial_points"} <= set(vars(bayesian))
    for name in ("_random_populate_space", "_vectorize_trials", "_vector_to_values", "_get_hp_bounds"):
        assert callable(getattr(bayesian, name))
    assert isinstance(bayesian.gpr.kernel, Matern) and bayesian.gpr.kernel.nu == 2.5
    hyperband = made["HyperbandOracle"]
    assert {"_brackets", "_current_bracket"} <= set(vars(hyperband)) and callable(hyperband._get_size)
    assert set(hyperband._brackets[0]) == {"bracket_num", "rounds"}
