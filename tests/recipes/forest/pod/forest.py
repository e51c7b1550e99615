"""Ordinary scikit-learn and multiprocessing, as they are written for no sandbox at all.

Apart from the tests that run it, because it is a recipe: nothing here knows where it runs.
"""

import multiprocessing
import os
from multiprocessing import shared_memory

import numpy as np
from joblib import Parallel, delayed
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score

#: Digits to learn from, of 1797.
LEARNT = 1300
#: How often each of two processes counts.
COUNTS = 200


class Forest:
    """The operations of `test/forest`."""

    def load(self, models):
        self.digits = load_digits()

    def learn(self, input):
        """The forest in two threads of joblib's, the folds and the asking for process ids in two of its
        processes."""
        data, wanted = self.digits.data, self.digits.target
        forest = RandomForestClassifier(n_estimators=20, random_state=7, n_jobs=2).fit(data[:LEARNT], wanted[:LEARNT])
        right = int((forest.predict(data[LEARNT:]) == wanted[LEARNT:]).sum())
        small = RandomForestClassifier(n_estimators=5, random_state=7)
        folds = cross_val_score(small, data[:300], wanted[:300], cv=2, n_jobs=2)
        workers = {pid for pid in Parallel(n_jobs=2)(delayed(os.getpid)() for _ in range(8)) if pid != os.getpid()}
        return {"right": right, "folds": [round(float(fold), 6) for fold in folds], "workers": len(workers)}

    def share(self, input):
        context = multiprocessing.get_context(input["way"])
        with context.Pool(2) as pool:
            squares = pool.map(square, range(10))
        counter = context.Value("i", 0)
        run_both(context, count, counter)
        with context.Manager() as manager:
            told = manager.list()
            run_both(context, tell, told)
            told = sorted(told)
        block = shared_memory.SharedMemory(create=True, size=1000 * 8)
        try:
            array = np.ndarray((1000,), dtype=np.float64, buffer=block.buf)
            array[:] = np.arange(1000)
            process = context.Process(target=double, args=(block.name,))
            process.start()
            process.join()
            summed = float(array.sum())
            del array
        finally:
            block.close()
            block.unlink()
        return {"squares": squares, "counted": counter.value, "told": told, "summed": summed}


def run_both(context, work, shared):
    processes = [context.Process(target=work, args=(shared,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


def square(number):
    return number * number


def count(counter):
    for _ in range(COUNTS):
        with counter.get_lock():
            counter.value += 1


def tell(told):
    for number in range(3):
        told.append(number)


def double(name):
    block = shared_memory.SharedMemory(name=name)
    array = np.ndarray((1000,), dtype=np.float64, buffer=block.buf)
    array *= 2
    del array
    block.close()
