import hashlib

import numpy as np
import pandas as pd
import pytest

from zoo.data.grouping import place
from zoo.data.manifest import COLUMNS, FACTS, Manifest
from zoo.data.splits import NAMES, assign, check_fractions, folds, from_earlier, leak_lines, leaks, read_split

SHARES = (0.7, 0.15, 0.15)


def rows(label, contents, **columns):
    """Manifest rows of one class, a row a content."""
    table = pd.DataFrame({"path": [f"{label}/{content}" for content in contents], "label": label, "split": ""})
    hashes = [hashlib.sha256(str(content).encode()).hexdigest() for content in contents]
    return table.assign(**{**FACTS, "sha256": hashes, **columns})


def joined(*tables):
    return pd.concat(tables, ignore_index=True)


def bare(table, seed=0):
    """The rule without mending: where the hash alone sends each row."""
    places = [place(seed, content) for content in table.sha256]
    return [("test" if at < 0.15 else "dev" if at < 0.3 else "train") for at in places]


def shared_out(table, seed=0, shares=SHARES, group="duplicates"):
    return assign(table, shares, group=group, seed=seed)


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return joined(
        *(rows(str(label), [picture.tobytes() for picture in images[labels == label]]) for label in range(10))
    )


def test_seed_and_content_alone_decide(digits):
    splits = shared_out(digits)
    assert list(splits) == bare(digits)  # with 180 pictures a class nothing needs mending
    shares = pd.crosstab(digits.label, splits, normalize="index")[list(NAMES)]
    assert (shares >= np.array(SHARES) / 2).all().all()
    assert np.allclose(splits.value_counts(normalize=True)[list(NAMES)], SHARES, atol=0.032)  # 3 standard deviations
    assert shared_out(digits.assign(path=digits.path.str[::-1])).equals(splits)
    shuffled = digits.sample(frac=1, random_state=0)
    assert shared_out(shuffled).reindex(digits.index).equals(splits)
    assert not shared_out(digits, seed=1).equals(splits)


def test_added_files_move_no_other(digits):
    before = shared_out(digits)
    for count in (1, 7, 50):
        more = joined(*(rows(str(i % 10), [f"new {count} {i}"]) for i in range(count)))
        after = shared_out(joined(more, digits))
        assert list(after[count:]) == list(before)


@pytest.mark.parametrize("count", [3, 4, 10, 20, 50])
def test_small_classes_are_mended_with_as_few_moves_as_can_be(count):
    mended = 0
    for seed in range(20):
        small, large = rows("small", range(count)), rows("large", range(1000, 1200))
        table = joined(small, large)
        splits = shared_out(table, seed)
        have = splits[:count].value_counts().reindex(NAMES, fill_value=0)
        least = np.ceil(np.array(SHARES) * [0.8, 0.5, 0.5] * count - 1e-9)
        if count > 4:  # with three pictures, training must do with one
            assert (have.to_numpy() >= least).all()
        assert have.min() >= 1
        rule = pd.Series(bare(table, seed))
        lacking = (least - rule[:count].value_counts().reindex(NAMES, fill_value=0)).clip(lower=0)
        if count > 4:
            assert (rule != splits)[:count].sum() == lacking.sum()
        assert list(rule[count:]) == list(splits[count:])
        mended += bool(lacking.sum())
    assert 0 < mended


def test_the_groups_nearest_to_the_threshold_are_moved():
    table = rows("a", range(400))
    table = table.assign(at=[place(0, content) for content in table.sha256]).sort_values("at", ignore_index=True)
    train, dev, test = (table[pd.Series(bare(table)) == name] for name in NAMES)
    lacks_test = joined(dev.tail(2), train.head(18))  # wants two of 20; dev has none to spare
    assert list(lacks_test.path[shared_out(lacks_test) == "test"]) == list(train.path[:2])
    lacks_dev = joined(test.tail(10), train.tail(10))
    assert list(lacks_dev.path[shared_out(lacks_dev) == "dev"]) == list(test.path[-2:])
    shared = train.iloc[:1].assign(label="b", path="b/first")  # the nearest one reaches into another class
    others = rows("b", range(1000, 1200))
    splits = shared_out(joined(lacks_test, shared, others))
    assert list(lacks_test.path[splits[:20] == "test"]) == list(train.path[1:3])


def test_patients_of_several_classes_go_as_one():
    draw = np.random.default_rng(0)
    for seed in range(30):
        count, classes = int(draw.integers(40, 150)), int(draw.integers(2, 5))
        table = rows("a", range(count), patient=draw.integers(0, count // 3, count))
        table["label"] = draw.integers(0, classes, count).astype(str)
        splits = shared_out(table, seed, group="patient")
        assert splits.groupby(table.patient).nunique().max() == 1
        assert (pd.crosstab(table.label, splits) > 0).all().all()
        order = draw.permutation(count)
        assert shared_out(table.iloc[order], seed, group="patient").reindex(table.index).equals(splits)


def test_too_few_groups_are_refused():
    table = joined(rows("many", range(10)), rows("few", ["x", "y"]))
    with pytest.raises(ValueError, match="Class 'few' has 2 different pictures, too few .* train, dev, test"):
        shared_out(table)
    assert shared_out(table, shares=(0.7, 0.3, 0.0))[10:].nunique() == 2
    with pytest.raises(ValueError, match="Class 'few' has 1 groups of pictures"):
        shared_out(table, shares=(0.7, 0.3, 0.0), group=lambda path: path if path.startswith("many") else "one")


def test_groups_that_no_split_can_do_without_are_named():
    # each class has three of four groups, so no two groups may be in one split
    classes = {"a": "123", "b": "124", "c": "134", "d": "234"}
    table = joined(
        *(rows(label, [f"{label}{name}" for name in names], name=list(names)) for label, names in classes.items())
    )
    with pytest.raises(ValueError, match="cannot have pictures in each of train, dev, test.*Group otherwise"):
        shared_out(table, group="name")


def test_twins_stay_together_and_an_added_copy_moves_nothing(digits):
    before = shared_out(digits)
    copies = digits.sample(40, random_state=0)
    table = joined(digits, copies.assign(path="copy/" + copies.path))
    after = shared_out(table)
    assert list(after[: len(digits)]) == list(before)
    assert list(after[len(digits) :]) == list(before[copies.index])
    near = digits.assign(twin=[digits.path[row - row % 2] for row in range(len(digits))])
    splits = shared_out(near)
    assert shared_out(near[::-1])[::-1].equals(splits)
    assert splits.groupby(near.twin).nunique().max() == 1
    assert not splits.equals(before)
    alone = shared_out(table, group=None)
    assert list(alone[: len(digits)][~digits.sha256.isin(copies.sha256)]) == list(
        before[~digits.sha256.isin(copies.sha256)]
    )
    assert alone.groupby(table.sha256).nunique().max() == 2


def test_a_column_joins_what_it_names_and_twins_of_it():
    table = rows("a", range(120), patient=[i // 3 for i in range(120)])
    table.loc[[2, 3], "twin"] = table.path[2]  # patients 0 and 1 share a near twin
    splits = shared_out(table, group="patient")
    assert splits.groupby(table.patient).nunique().max() == 1
    assert splits[:6].nunique() == 1
    copies = table.assign(sha256=table.sha256.where(table.index % 6 != 3, table.sha256.shift(3)))
    splits_of_copies = shared_out(copies, group="patient")  # each second patient has a picture of the one before
    assert splits_of_copies.groupby(table.patient // 2).nunique().max() == 1
    other = rows("a", range(500, 620)).assign(patient=table.patient, twin=table.twin)
    assert shared_out(other, group="patient").equals(splits)  # names decide, not contents
    text = table.assign(patient=table.patient.astype(str))
    assert shared_out(text, group=lambda path: str(int(path[2:]) // 3)).equals(splits)
    gaps = table.assign(patient=table.patient.where(table.index < 60))  # numbers became floats
    after = shared_out(gaps, group="patient")
    assert after[:60].equals(splits[:60])
    assert after[60:].tolist() == bare(table)[60:]
    assert shared_out(text.assign(patient=text.patient.where(table.index < 60, "")), group="patient").equals(after)
    with pytest.raises(ValueError, match=r"`group` .*\(path, label, split, patient\).* Received: group='person'"):
        shared_out(table, group="person")


def test_an_earlier_manifest_holds_every_picture(digits):
    first = shared_out(digits)
    earlier = digits.assign(split=first)
    more = joined(*(rows(str(i % 10), [f"new {i}"]) for i in range(60)))
    twins = more.head(20).assign(twin=digits.path[:20].to_numpy())
    table = joined(digits[5:], twins, more[20:])
    table.loc[:14, "twin"] = digits.path[5:20].to_numpy()
    splits = from_earlier(table, earlier, group="duplicates", seed=7)
    old = len(digits) - 5
    assert list(splits[:old]) == list(first[5:])
    assert list(splits[old + 5 : old + 20]) == list(first[5:20])  # twins of vanished pictures go by their own hash
    assert list(splits[old + 20 :]) == bare(more[20:], seed=7)
    by_path = from_earlier(table, earlier[["path", "split"]], SHARES, group="duplicates", seed=7)
    assert by_path.equals(splits)
    moved = table.assign(path="elsewhere/" + table.path)
    assert from_earlier(moved, earlier, group=None, seed=7)[:old].tolist() == list(first[5:])


def test_an_earlier_manifest_leaves_the_mending_to_new_pictures():
    old = rows("old", range(40), split="train")
    old.loc[:9, "split"] = ["dev"] * 5 + ["test"] * 5
    table = joined(old, rows("old", ["x"]), rows("new", "abcde"))
    for seed in range(10):
        splits = from_earlier(table, old, group="duplicates", seed=seed)
        assert list(splits[:40]) == list(old.split)
        assert set(splits[41:]) == set(NAMES)
    torn = old.assign(sha256=old.sha256.where(old.index % 2 == 0, old.sha256.shift()))
    assert list(from_earlier(torn, torn, group="duplicates", seed=0)) == list(old.split)
    apart = joined(old, rows("old", ["twin"])).assign(twin="one of all")  # joins the first of train, dev, test
    for order in (apart, apart[::-1]):
        assert from_earlier(order, old, group="duplicates", seed=0)[40] == "train"
    poor = joined(old[10:], rows("old", range(100, 130)))  # a new twin each, which dev and test must do without
    poor["twin"] = [*old.path[10:]] * 2
    assert set(from_earlier(poor, old[10:], SHARES, group="duplicates", seed=0)) == {"train"}


def test_an_earlier_manifest_that_says_nothing_is_refused():
    table = rows("a", range(10))
    with pytest.raises(ValueError, match="None of the 10 pictures is in the earlier manifest"):
        from_earlier(table, rows("a", "xyz", split="train"), group=None, seed=0)
    with pytest.raises(ValueError, match="has no training pictures"):
        from_earlier(table, table[:5].assign(split="test"), group=None, seed=0)
    with pytest.raises(ValueError, match="may say train, dev or test. Received: 'val'"):
        from_earlier(table, table.assign(split="val"), group=None, seed=0)


def test_split_is_shares_or_a_manifest(tmp_path):
    assert read_split((0.8, 0.2)) == (0.8, 0.2, 0.0)
    table = rows("a", range(3), split="train").reindex(columns=COLUMNS)
    manifest = Manifest(table)
    manifest.to_csv(tmp_path / "manifest.csv")
    for split in (tmp_path / "manifest.csv", str(tmp_path / "manifest.csv"), manifest, table):
        read = read_split(split)
        assert list(from_earlier(table, read, (1, 0, 0), group=None, seed=0)) == ["train"] * 3
    with pytest.raises(FileNotFoundError, match="There is no file 0.8.*shares such as"):
        read_split("0.8")
    with pytest.raises(ValueError, match="columns split and sha256 .* Received: columns path, label"):
        read_split(table[["path", "label"]])
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ValueError, match="empty.csv cannot be read"):
        read_split(tmp_path / "empty.csv")


@pytest.mark.parametrize("split", [(0.5, 0.2, 0.2), (0, 0.5, 0.5), (1.1, -0.1), (0.5, np.nan, 0.5), 0.7, None, "ab"])
def test_shares_out_of_range_are_refused(split):
    with pytest.raises(ValueError, match="shares of train, dev and test, adding up to 1, with train above 0"):
        check_fractions(split)


def test_folds_share_out_each_class_evenly(digits):
    parts = folds(digits, 5, group="duplicates", seed=0)
    counts = pd.crosstab(digits.label, parts)
    assert list(counts.columns) == [0, 1, 2, 3, 4]
    assert (counts.max(axis=1) - counts.min(axis=1)).max() <= 1
    assert parts.value_counts().max() - parts.value_counts().min() <= 1
    shuffled = digits.sample(frac=1, random_state=0)
    assert folds(shuffled, 5, group="duplicates", seed=0).reindex(digits.index).equals(parts)
    assert not folds(digits, 5, group="duplicates", seed=1).equals(parts)


def test_folds_keep_groups_together():
    sizes = [1] * 9 + [9, 18, 18]  # dealt in any other order than the largest first, they do not fit
    table = rows("a", range(54), patient=np.repeat(range(12), sizes))
    parts = folds(joined(table, rows("b", "uvwxyz")), 3, group="patient", seed=0)
    assert parts[:54].groupby(table.patient).nunique().max() == 1
    assert parts[:54].value_counts().tolist() == [18, 18, 18]
    assert parts[54:].value_counts().tolist() == [2, 2, 2]
    with pytest.raises(ValueError, match="Class 'b' has 6 groups .* too few for 7 folds. Ask for at most 6"):
        folds(joined(table, rows("b", "uvwxyz")), 7, group="patient", seed=0)
    for k in (1, 2.5, True):
        with pytest.raises(ValueError, match="`k` must be a whole number"):
            folds(table, k, group=None, seed=0)


def test_leaks_name_what_each_picture_repeats():
    table = joined(
        rows("train", "abcd", split="train"),
        rows("dev", "avw", split="dev"),
        rows("test", "abwyz", split="test"),
        rows("left out", "z"),
    )
    table.loc[table.path.isin(["train/c", "test/y"]), "twin"] = "train/c"
    table.loc[table.path.isin(["train/d", "dev/w", "test/w"]), "twin"] = "train/d"
    assert leaks(table).to_numpy().tolist() == [
        ["dev/a", "dev", "train/a", "train", "same content"],
        ["dev/w", "dev", "train/d", "train", "near twin"],
        ["test/a", "test", "train/a", "train", "same content"],
        ["test/b", "test", "train/b", "train", "same content"],
        ["test/w", "test", "train/d", "train", "near twin"],
        ["test/y", "test", "train/c", "train", "near twin"],
    ]
    assert leak_lines(table, most=1) == [
        "1 picture of dev is also in train: dev/a = train/a",
        "1 picture of dev looks like one of train: dev/w ~ train/d",
        "2 pictures of test are also in train: test/a = train/a, ... and 1 more",
        "2 pictures of test look like ones of train: test/w ~ train/d, ... and 1 more",
    ]
    assert leak_lines(table.assign(split="train")) == []
    assert leaks(table[table.split != "train"])[["path", "twin_path"]].to_numpy().tolist() == [
        ["test/a", "dev/a"],
        ["test/w", "dev/w"],
    ]
