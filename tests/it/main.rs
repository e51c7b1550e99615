//! The one integration-test binary: linking wasmtime once is slow enough.

mod blobs;
mod cli;
mod embedding;
mod embeddings;
mod environment;
mod facade;
mod leftovers;
mod levers;
mod models;
mod packages;
mod pods;
mod promises;
mod repository;
mod residency;
mod sandbox;
mod script_glue;
mod sessions;
mod shelf;
mod storms;
mod support;
mod tidy;
mod zygotes;
