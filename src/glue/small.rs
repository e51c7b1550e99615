//! The state of the small WASI in one run of glue in a script language.

use crate::{glue::output::Said, model::Digest};
use sha2::Digest as _;
use sha2::Sha256;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use wasmtime_wasi::WasiCtx;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;

/// The WASI state of one run, made at first use.
pub struct Small {
    pub(super) context: WasiCtx,
    pub(super) clock: Arc<AtomicU64>,
    pub(super) random: Random,
}

impl Small {
    pub(super) fn new(seed: Option<&Seed>) -> Small {
        let seed = seed.cloned().unwrap_or_default();
        let mut context = WasiCtx::builder();
        context
            .stdin(MemoryInputPipe::new(bytes::Bytes::new()))
            .stdout(seed.said.stdout)
            .stderr(seed.said.stderr)
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false);
        Small { context: context.build(), clock: Arc::default(), random: seed.random }
    }
}

/// The data from which the state is made at first use.
#[derive(Clone, Default)]
pub struct Seed {
    pub said: Said,
    pub random: Random,
}

/// A stream of numbers derived from a run's recipe and input: equal calls get equal numbers.
#[derive(Clone, Default)]
pub struct Random {
    key: [u8; 32],
    block: u64,
    left: Vec<u8>,
}

impl Random {
    pub fn new(recipe: Digest, input: &str) -> Random {
        let mut hasher = Sha256::new();
        hasher.update(recipe.hex());
        hasher.update(Sha256::digest(input));
        Random { key: hasher.finalize().into(), block: 0, left: Vec::new() }
    }

    pub(super) fn take(&mut self, count: usize) -> Vec<u8> {
        while self.left.len() < count {
            let mut hasher = Sha256::new();
            hasher.update(self.key);
            hasher.update(self.block.to_le_bytes());
            self.block += 1;
            self.left.extend_from_slice(&hasher.finalize());
        }
        self.left.drain(..count).collect()
    }

    pub(super) fn number(&mut self) -> u64 {
        self.take(8).iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}
