//! One call of glue: wasmtime, the world `hob:glue`, its caps.
