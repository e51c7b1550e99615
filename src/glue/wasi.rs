//! The small WASI for glue in a script language, whose runtime imports more than `hob:glue`.
//!
//! The interfaces are WASI's, 0.2; guests without WASI imports never use this file. Nothing here reaches the
//! system:
//!
//! - Time stands still. Only sleeping advances the guest's own clock, and takes no time.
//! - Random numbers are derived from recipe and input.
//! - There are no files, variables or arguments.
//! - Printed output is kept for the fault.
//!
//! So a run has no effects except those of `hob:glue`, and waits for nothing.

use crate::glue::small::Small;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use wasmtime::component::{HasData, HasSelf, Linker, Resource, ResourceTable};
use wasmtime_wasi::{
    WasiCtxView, WasiView, async_trait,
    cli::{WasiCli, WasiCliView as _},
    filesystem::{WasiFilesystem, WasiFilesystemView as _},
    p2::{
        SocketError, TcpSocket, UdpSocket,
        bindings::{
            cli,
            clocks::{monotonic_clock, wall_clock},
            filesystem,
            random::{insecure, insecure_seed, random},
            sockets::{
                self, ip_name_lookup,
                network::{ErrorCode, IpAddressFamily},
                tcp_create_socket, udp_create_socket,
            },
        },
    },
    sockets::{WasiSockets, WasiSocketsView as _},
};
use wasmtime_wasi_io::{
    bindings::wasi::io,
    poll::{DynPollable, Pollable, subscribe},
};

use crate::{
    glue::{caps::limit, run::Run},
    model::limits,
};

/// The offered interfaces of WASI 0.2, by package.
pub const OFFERED: &[(&str, &[&str])] = &[
    (
        "wasi:cli",
        &[
            "environment",
            "exit",
            "stdin",
            "stdout",
            "stderr",
            "terminal-input",
            "terminal-output",
            "terminal-stdin",
            "terminal-stdout",
            "terminal-stderr",
        ],
    ),
    ("wasi:clocks", &["monotonic-clock", "wall-clock"]),
    ("wasi:filesystem", &["preopens", "types"]),
    ("wasi:io", &["error", "poll", "streams"]),
    ("wasi:random", &["insecure", "insecure-seed", "random"]),
];

/// Interfaces that CPython's C library imports whether they are used or not.
pub const SOCKETS: (&str, &[&str]) =
    ("wasi:sockets", &["instance-network", "ip-name-lookup", "network", "tcp", "tcp-create-socket", "udp", "udp-create-socket"]);

/// A last custom section with which a builder marks that its language imports sockets without needing them.
/// They are then linked as something that is never granted; other glue that imports them is refused at
/// install.
pub const SOCKETS_UNUSED: &[u8] = b"\0\x1f\x12hob:unused-importswasi:sockets";

/// The guest's wall clock is constant: 2020-01-01T00:00:00Z.
const WALL_CLOCK_SECONDS: u64 = 1_577_836_800;

/// How much of WASI a component gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wasi {
    No,
    Yes,
    /// WASI, and socket interfaces that grant no socket.
    WithSocketNames,
}

struct Io;

impl HasData for Io {
    type Data<'a> = &'a mut ResourceTable;
}

/// Links the offered interfaces.
pub fn link(linker: &mut Linker<Run>, wasi: Wasi) -> wasmtime::Result<()> {
    type Own = HasSelf<Run>;
    let l = linker;
    io::error::add_to_linker::<Run, Io>(l, |run| run.ctx().table)?;
    io::poll::add_to_linker::<Run, Io>(l, |run| run.ctx().table)?;
    io::streams::add_to_linker::<Run, Io>(l, |run| run.ctx().table)?;
    cli::environment::add_to_linker::<Run, WasiCli>(l, Run::cli)?;
    cli::exit::add_to_linker::<Run, WasiCli>(l, Run::cli)?;
    cli::stdin::add_to_linker::<Run, WasiCli>(l, Run::cli)?;
    cli::stdout::add_to_linker::<Run, WasiCli>(l, Run::cli)?;
    cli::stderr::add_to_linker::<Run, WasiCli>(l, Run::cli)?;
    cli::terminal_input::add_to_linker::<Run, WasiCli>(l, Run::cli)?;
    cli::terminal_output::add_to_linker::<Run, WasiCli>(l, Run::cli)?;
    cli::terminal_stdin::add_to_linker::<Run, WasiCli>(l, Run::cli)?;
    cli::terminal_stdout::add_to_linker::<Run, WasiCli>(l, Run::cli)?;
    cli::terminal_stderr::add_to_linker::<Run, WasiCli>(l, Run::cli)?;
    filesystem::preopens::add_to_linker::<Run, WasiFilesystem>(l, Run::filesystem)?;
    filesystem::types::add_to_linker::<Run, WasiFilesystem>(l, Run::filesystem)?;
    monotonic_clock::add_to_linker::<Run, Own>(l, |run| run)?;
    wall_clock::add_to_linker::<Run, Own>(l, |run| run)?;
    random::add_to_linker::<Run, Own>(l, |run| run)?;
    insecure::add_to_linker::<Run, Own>(l, |run| run)?;
    insecure_seed::add_to_linker::<Run, Own>(l, |run| run)?;
    if wasi == Wasi::WithSocketNames {
        // Hob's own versions of the two ways to a socket and the one to a name always refuse, so the rest is
        // unreachable.
        sockets::instance_network::add_to_linker::<Run, WasiSockets>(l, Run::sockets)?;
        sockets::network::add_to_linker::<Run, WasiSockets>(l, &sockets::network::LinkOptions::default(), Run::sockets)?;
        sockets::tcp::add_to_linker::<Run, WasiSockets>(l, Run::sockets)?;
        sockets::udp::add_to_linker::<Run, WasiSockets>(l, Run::sockets)?;
        tcp_create_socket::add_to_linker::<Run, Own>(l, |run| run)?;
        udp_create_socket::add_to_linker::<Run, Own>(l, |run| run)?;
        ip_name_lookup::add_to_linker::<Run, Own>(l, |run| run)?;
    }
    Ok(())
}

impl Run {
    fn small(&mut self) -> &mut Small {
        self.wasi.get_or_insert_with(|| Box::new(Small::new(self.seed.as_ref())))
    }
}

/// How the library's own functions reach a run. This access cannot fail: one call too many ends the run at
/// its next tick, or at its end.
impl WasiView for Run {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.crossings.host_calls += 1;
        let small = self.wasi.get_or_insert_with(|| Box::new(Small::new(self.seed.as_ref())));
        WasiCtxView { ctx: &mut small.context, table: &mut self.table }
    }
}

/// A sleep that is over as soon as it is awaited; the guest's clock is then advanced by its time.
struct Sleep {
    until: u64,
    clock: Arc<AtomicU64>,
}

#[async_trait]
impl Pollable for Sleep {
    async fn ready(&mut self) {
        self.clock.fetch_max(self.until, Relaxed);
    }
}

impl monotonic_clock::Host for Run {
    fn now(&mut self) -> wasmtime::Result<u64> {
        self.enter()?;
        Ok(self.small().clock.load(Relaxed))
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        self.enter()?;
        Ok(1)
    }

    fn subscribe_instant(&mut self, until: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.enter()?;
        let clock = self.small().clock.clone();
        let sleep = self.push(Sleep { until, clock })?;
        subscribe(&mut self.table, sleep)
    }

    fn subscribe_duration(&mut self, nanoseconds: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let now = self.small().clock.load(Relaxed);
        self.subscribe_instant(now.saturating_add(nanoseconds))
    }
}

impl wall_clock::Host for Run {
    fn now(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        self.enter()?;
        Ok(wall_clock::Datetime { seconds: WALL_CLOCK_SECONDS, nanoseconds: 0 })
    }

    fn resolution(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        self.enter()?;
        Ok(wall_clock::Datetime { seconds: 1, nanoseconds: 0 })
    }
}

impl Run {
    fn random_bytes(&mut self, count: u64) -> wasmtime::Result<Vec<u8>> {
        self.enter()?;
        match usize::try_from(count).ok().filter(|count| *count <= limits::GLUE_RANDOM_BYTES_MAX) {
            Some(count) => Ok(self.small().random.take(count)),
            None => Err(limit(
                &self.manifest,
                "random bytes",
                usize::try_from(count).unwrap_or(usize::MAX),
                limits::GLUE_RANDOM_BYTES_MAX,
                "in one host call",
            )
            .into()),
        }
    }
}

impl random::Host for Run {
    fn get_random_bytes(&mut self, count: u64) -> wasmtime::Result<Vec<u8>> {
        self.random_bytes(count)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.enter()?;
        Ok(self.small().random.number())
    }
}

impl insecure::Host for Run {
    fn get_insecure_random_bytes(&mut self, count: u64) -> wasmtime::Result<Vec<u8>> {
        self.random_bytes(count)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        random::Host::get_random_u64(self)
    }
}

impl insecure_seed::Host for Run {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        self.enter()?;
        let random = &mut self.small().random;
        Ok((random.number(), random.number()))
    }
}

impl sockets::network::Host for Run {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn network_error_code(&mut self, _: Resource<wasmtime_wasi::p2::IoError>) -> wasmtime::Result<Option<ErrorCode>> {
        self.enter()?;
        Ok(None)
    }
}

impl sockets::network::HostNetwork for Run {
    fn drop(&mut self, network: Resource<sockets::network::Network>) -> wasmtime::Result<()> {
        self.enter()?;
        self.table.delete(network)?;
        Ok(())
    }
}

fn refused<T>() -> Result<T, SocketError> {
    Err(ErrorCode::AccessDenied.into())
}

impl tcp_create_socket::Host for Run {
    fn create_tcp_socket(&mut self, _: IpAddressFamily) -> Result<Resource<TcpSocket>, SocketError> {
        self.enter().map_err(SocketError::trap)?;
        refused()
    }
}

impl udp_create_socket::Host for Run {
    async fn create_udp_socket(&mut self, _: IpAddressFamily) -> Result<Resource<UdpSocket>, SocketError> {
        self.enter().map_err(SocketError::trap)?;
        refused()
    }
}

impl ip_name_lookup::Host for Run {
    fn resolve_addresses(
        &mut self,
        _: Resource<ip_name_lookup::Network>,
        _: String,
    ) -> Result<Resource<ip_name_lookup::ResolveAddressStream>, SocketError> {
        self.enter().map_err(SocketError::trap)?;
        refused()
    }
}

/// No such stream exists, because nothing makes one.
impl ip_name_lookup::HostResolveAddressStream for Run {
    fn resolve_next_address(
        &mut self,
        _: Resource<ip_name_lookup::ResolveAddressStream>,
    ) -> Result<Option<ip_name_lookup::IpAddress>, SocketError> {
        self.enter().map_err(SocketError::trap)?;
        refused()
    }

    fn subscribe(&mut self, stream: Resource<ip_name_lookup::ResolveAddressStream>) -> wasmtime::Result<Resource<DynPollable>> {
        self.enter()?;
        subscribe(&mut self.table, stream)
    }

    fn drop(&mut self, stream: Resource<ip_name_lookup::ResolveAddressStream>) -> wasmtime::Result<()> {
        self.enter()?;
        self.table.delete(stream)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::glue::small::Random;
    use crate::model::Digest;

    #[test]
    fn random_numbers_follow_from_recipe_and_input() {
        let (recipe, other) = (Digest::of(b"a"), Digest::of(b"b"));
        let bytes = Random::new(recipe, "{}").take(100);
        assert_eq!(bytes, Random::new(recipe, "{}").take(100));
        assert_ne!(bytes, Random::new(recipe, "[]").take(100));
        assert_ne!(bytes, Random::new(other, "{}").take(100));
        // The stream continues where it was, whatever the sizes of the pieces.
        let mut pieces = Random::new(recipe, "{}");
        assert_eq!([pieces.take(1), pieces.take(63), pieces.take(36)].concat(), bytes);
        assert_ne!(pieces.number(), pieces.number());
    }

    #[test]
    fn the_mark_of_unused_sockets_is_a_custom_section() {
        // Id, length of the rest, length of the name.
        let name = b"hob:unused-imports";
        assert_eq!(SOCKETS_UNUSED[..3], [0, SOCKETS_UNUSED.len() as u8 - 2, name.len() as u8]);
        assert_eq!(&SOCKETS_UNUSED[3..3 + name.len()], name);
    }
}
