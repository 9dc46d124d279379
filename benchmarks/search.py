"""Searches: how long do twenty trials take, do they find something better, and what does the loop around them cost?

    ZOO_DATA=FOLDER KERAS_HOME=FOLDER python benchmarks/search.py [--quick] [CASE ...]

Cases; each runs in a process of its own:
  head      20 trials of space "head" on FOLDER/hymenoptera, frozen MobileNetV2 with ImageNet weights at 224 px, up to
            20 epochs each, Bayesian, 2 workers, an empty feature cache; everything inside the clock but the imports of
            the parent: processes, weights, the pass over the pictures, all trials. Beside it, in the same run, stock
            KerasTuner (`RandomSearch`, one process with both cores) over the same space on plain Keras: decoded
            pictures cached by tf.data, keras.applications' MobileNetV2 frozen, its head compiled with the same
            hyperparameters, as many epochs and the same early stopping. **Three of its trials are run and the time is
            extrapolated to twenty.**
  transfer  12 trials of space "transfer" on FOLDER/flowers at 96 px, MobileNetV2, 8 epochs each, random, 2 workers; and
            the default recipe with three seeds, whose spread says what a difference means
  loop      100 trials that do nothing, through the loop, the journal and two worker processes that are up already;
            seconds a trial
  memory    100 random trials of a small `convnet` on 60 digits, 1 epoch each, 2 workers: resident memory of the
            searching process behind each tenth trial

Expected: head under 90 s, the stock tuner at least 8 times as long, dev accuracy at least 95 %; transfer above the
default or within its spread; loop under 0.2 s a trial; memory within 50 MB.

Results are written to search.json beside this file; those of cases that were not run stay there, each with its date
and commit.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from datetime import date
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.append(sys.path.pop(0))  # other scripts here are called as packages are

RECORD = Path(__file__).with_suffix(".json")
STOCK_TRIALS = 3


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"some of: {', '.join(CASES)}")
    parser.add_argument("--quick", action="store_true", help="few trials of everything, nothing is written")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(CASES[arguments.child](arguments.quick)))
        return
    if unknown := set(arguments.cases) - set(CASES):
        parser.error(f"there is no case {', '.join(sorted(unknown))}; there are: {', '.join(CASES)}")
    import record

    found = json.loads(RECORD.read_text())["results"] if RECORD.exists() else {}
    for case in arguments.cases or CASES:
        found[case] = {**child(case, arguments.quick), "date": date.today().isoformat(), "commit": record.commit()}
        print(case, json.dumps(found[case], indent=2), flush=True)
    if not arguments.quick:
        record.write(__file__, found)


def child(case, quick):
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, __file__, "--child", case, *(["--quick"] if quick else [])]
        environment = {**os.environ, "XDG_CACHE_HOME": cache}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def head(quick):
    import zoo

    trials = 4 if quick else 20
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        data = zoo.load_data(place("hymenoptera"))
        data.train  # noqa: B018 - the scan is not what is measured, and the peer has none
        import tuning
        import tuning.searching  # noqa: F401 - as the peer's import of keras_tuner, outside the clock

        began = time.perf_counter()
        result = tuning.search(
            "mobilenet_v2", data, space="head", trials=trials, epochs=20, workers=2, directory=Path(folder) / "search"
        )
        ours = time.perf_counter() - began
        theirs, best = stock(Path(folder) / "stock", 1 if quick else STOCK_TRIALS)
        return {
            "seconds": ours,
            "trials": len(result.trials),
            "completed": int((result.trials.status == "completed").sum()),
            "median seconds of a trial": float(result.trials.seconds.median()),
            "best dev accuracy": result.best_score,
            "dev accuracy of the first trial, the known-good recipe": float(result.trials.score.iloc[0]),
            "dev accuracy of all trials": sorted(result.trials.score.tolist()),
            "best": result.best,
            "stock KerasTuner: seconds of the trials that were run": theirs,
            "stock KerasTuner: their best dev accuracy": best,
            "stock KerasTuner: seconds, extrapolated": sum(theirs) / len(theirs) * trials,
            "times as quick": sum(theirs) / len(theirs) * trials / ours,
        }


def stock(folder, trials):
    """Seconds of each trial, and the best dev accuracy, of stock KerasTuner on plain Keras over the same space."""
    import keras
    import keras_tuner
    import tensorflow as tf

    from tuning import spaces

    root = place("hymenoptera")
    options = {"image_size": (224, 224), "batch_size": None, "label_mode": "categorical"}
    train = keras.utils.image_dataset_from_directory(root / "train", seed=0, **options).cache()
    dev = keras.utils.image_dataset_from_directory(root / "val", shuffle=False, **options).cache()
    seconds = []

    class Stock(keras_tuner.HyperModel):
        def build(self, hp):
            fields = spaces.head(hp, model="mobilenet_v2")
            base = keras.applications.MobileNetV2(input_shape=(224, 224, 3), include_top=False, weights="imagenet")
            base.trainable = False
            image = keras.Input((224, 224, 3))
            x = base(keras.applications.mobilenet_v2.preprocess_input(image), training=False)
            x = keras.layers.GlobalAveragePooling2D()(x)
            x = keras.layers.Dropout(fields["dropout"])(x)
            if fields["head"] == "hidden":
                x = keras.layers.Dense(fields["hidden_units"], activation="relu")(x)
                x = keras.layers.Dropout(fields["dropout"])(x)
            model = keras.Model(image, keras.layers.Dense(2, activation="softmax")(x))
            optimizer = keras.optimizers.AdamW(
                fields["learning_rate"], beta_1=fields["momentum"], weight_decay=fields["weight_decay"]
            )
            loss = keras.losses.CategoricalCrossentropy(label_smoothing=fields["label_smoothing"])
            model.compile(optimizer, loss, metrics=["accuracy"])
            return model

        def fit(self, hp, model, callbacks, **given):
            size = int(spaces.head(hp, model="mobilenet_v2")["batch_size"])
            began = time.perf_counter()
            history = model.fit(
                train.shuffle(256, seed=0).batch(size).prefetch(tf.data.AUTOTUNE),
                validation_data=dev.batch(64).prefetch(tf.data.AUTOTUNE),
                epochs=20,
                callbacks=[*callbacks, keras.callbacks.EarlyStopping(patience=8, restore_best_weights=True)],
                verbose=0,
            )
            seconds.append(time.perf_counter() - began)
            return history

    tuner = keras_tuner.RandomSearch(
        Stock(),
        objective=keras_tuner.Objective("val_accuracy", "max"),
        max_trials=trials,
        seed=1,
        directory=str(folder),
        project_name="stock",
    )
    tuner.search(verbose=0)
    return seconds, max(trial.score for trial in tuner.oracle.get_best_trials(trials))


def transfer(quick):
    import tuning
    import zoo

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        data = zoo.load_data(place("flowers"), image_size=96)
        began = time.perf_counter()
        result = tuning.search(
            "mobilenet_v2",
            data,
            space="transfer",
            algorithm="random",
            trials=3 if quick else 12,
            epochs=8,
            workers=2,
            directory=Path(folder) / "search",
        )
        seconds = time.perf_counter() - began
        defaults = [float(result.trials.score.iloc[0])]
        for seed in () if quick else (1, 2):
            run = zoo.fine_tune("mobilenet_v2", data, epochs=8, seed=seed, directory=Path(folder) / f"default-{seed}")
            defaults.append(run.history["val_accuracy"][run.best_epoch - 1])
        return {
            "seconds": seconds,
            "trials": len(result.trials),
            "dev pictures": len(data.dev),
            "best dev accuracy": result.best_score,
            "best": result.best,
            "dev accuracy of the default recipe, seeds 0, 1, 2": defaults,
            "dev accuracy of all trials": sorted(result.trials.score.dropna().tolist()),
        }


def loop(quick):
    from tuning.executor import WorkerPool
    from tuning.journal import Journal
    from tuning.loop import DONE, failure, work

    number = 10 if quick else 100
    result = {**failure("", "", ""), "status": "completed", "score": 0.5, "curve": [0.5] * 20}

    class Orders:
        given = 0

        def next(self):
            self.given += 1
            return {"trial": f"{self.given:04d}"} if self.given <= number else DONE

        def ended(self, order, result):
            pass

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "idle_trial.py").write_text(
            f"RESULT = {result!r}\n\n\ndef run(order):\n    return {{**RESULT, 'trial': order['trial']}}\n"
        )
        sys.path.append(folder)
        import idle_trial

        with WorkerPool(2) as pool:
            list(pool.map(abs, range(4)))  # both processes are up
            began = time.perf_counter()
            work(Orders(), pool, Journal(Path(folder)), width=2, run=idle_trial.run)
            return {"seconds a trial": (time.perf_counter() - began) / number}


def memory(quick):
    import psutil

    import tuning
    import zoo

    def space(hp):
        return {"learning_rate": hp.Float("learning_rate", 1e-4, 1e-1, sampling="log", default=1e-3)}

    trials = 12 if quick else 100
    held = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        journal = Path(folder) / "search" / "journal.jsonl"
        data = zoo.load_data("digits", image_size=8).fewer(60)

        def watch():
            while len(held) < trials:
                ended = journal.read_bytes().count(b'"event": "ended"') if journal.exists() else 0
                held.setdefault(ended, psutil.Process().memory_info().rss / 1e6)
                time.sleep(0.1)

        threading.Thread(target=watch, daemon=True).start()
        tuning.search(
            "convnet",
            data,
            space=space,
            algorithm="random",
            trials=trials,
            epochs=1,
            variant={"filters": (2, 4)},
            workers=2,
            directory=Path(folder) / "search",
        )
        held.setdefault(trials, psutil.Process().memory_info().rss / 1e6)
        return {f"MB behind trial {n}": held[n] for n in sorted(held) if n and n % 10 == 0} | {
            "growth from the 10th, MB": held[max(held)] - min(held[n] for n in held if n >= 10)
        }


def place(name):
    return Path(os.environ["ZOO_DATA"]) / name


CASES = {"head": head, "transfer": transfer, "loop": loop, "memory": memory}

if __name__ == "__main__":
    main()
