//! The world `hob:glue` in Rust, generated from `wit/glue.wit`; `imports.rs` implements it.
//!
//! Only imports that wait (for a pod, for a slow caller) are async: an async host function costs an
//! allocation per call.

wasmtime::component::bindgen!({
    path: "wit",
    world: "glue",
    imports: {
        "hob:glue/pod.start": async | trappable,
        "hob:glue/pod.[method]call.next": async | trappable,
        "hob:glue/output": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    with: {
        "hob:glue/blobs.blob": crate::glue::handles::HeldBlob,
        "hob:glue/blobs.builder": crate::glue::handles::Builder,
        "hob:glue/pod.call": crate::glue::handles::OpenAsk,
    },
});

/// Version of the world that this Hob offers, as in `wit/glue.wit`.
pub const VERSION: (u64, u64, u64) = (0, 1, 0);
