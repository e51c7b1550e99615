"""Gives what the expressions of docs/values.md are."""

import datetime

import numpy
import pandas
import pyarrow
import pydantic

NAMES = {
    "Found": pydantic.create_model("Found", label=(str, ...), at=(datetime.date, ...)),
    "date": datetime.date,
    "numpy": numpy,
    "pandas": pandas,
    "pyarrow": pyarrow,
}


class Rich:
    def give(self, input):
        import polars  # not before a fork: see recipe.toml

        return [eval(expression, {**NAMES, "polars": polars}) for expression in input]
