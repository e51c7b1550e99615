//! Recipes on this machine: repository client, store, environments, models, lock.
