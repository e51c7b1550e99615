//! `hob serve`: a server for the user that owns the home. Beside what every server does (`serving.rs`), it
//! handles signals, prints notes for its operator and notifies the service manager.

use std::{path::Path, sync::Arc, time::Duration};

use serde_json::json;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{
    ending::Ending,
    http::token::Token,
    notify::{self, Now},
    print,
    serving::{Listen, Serving, alone},
};
use crate::{
    host::Host,
    model::{Code, Door, Fault, Home, limits},
    pod,
    shelf::blocking,
};

/// Serves `host` until a signal ends it: at the socket of `home`, and at the other places that are named.
///
/// Errors: `already_serving`; `usage` for an address that cannot be read; `key_invalid` for a token file that
/// others can read, or that has no token; `invalid_config`; `io`.
pub async fn serve(host: &Host, home: &Home, listen: Option<&str>, unix: Option<&Path>, json: bool) -> Result<(), Fault> {
    let ending = Ending::new()?;
    let _alone = alone(home)?;
    pod::raise_open_files();
    let mut ways = Listen::new().at_home();
    if let Some(unix) = unix {
        ways = ways.at_socket(unix);
    }
    let mut address = None;
    if let Some(wanted) = listen {
        let token = Token::at(&home.token())?;
        let listener = bind(wanted).await?;
        address = listener.local_addr().ok();
        ways = ways.on(listener, token);
    }
    for entry in host.installed().unwrap_or_default() {
        for warning in host.warnings(&entry) {
            tracing::warn!(recipe = %entry.name, "installed by an older Hob, and read as it was: {warning}");
        }
    }
    let mut server = Serving::start(host, ways).await?;
    announce(home, unix, address, json);
    notify::tell(Now::Answers);
    let warming = host.clone();
    let warming = tokio::spawn(async move { warming.warm().await });

    loop {
        tokio::select! {
            () = ending.wished(1) => break,
            () = ending.anew() => {
                notify::tell(Now::ReadsAnew);
                read_anew(host, home, &server, listen.is_some()).await;
                notify::tell(Now::Answers);
            }
        }
    }
    let begun = Instant::now();
    notify::tell(Now::Ends);
    warming.abort();
    server.close();
    let is_empty = tokio::select! {
        () = server.emptied() => true,
        () = sleep_until(begun + Duration::from_millis(limits::SERVE_DRAIN_MS)) => false,
        () = ending.wished(2) => false,
    };
    // The time for running calls is over: each ends with a fault, which its caller is told.
    host.shutdown_within(Duration::ZERO).await;
    if !is_empty {
        let _ = timeout_at(Instant::now() + Duration::from_millis(limits::SERVE_GOODBYE_MS), server.emptied()).await;
    }
    Ok(())
}

/// Reads the token and `hob.toml` again. A file that cannot be read is noted, and the old content stays.
async fn read_anew(host: &Host, home: &Home, server: &Serving, has_token: bool) {
    let (looking, place) = (host.clone(), home.token());
    let read_rules = blocking(move || looking.read_anew()).await;
    let read_token = match has_token {
        true => blocking(move || Token::at(&place)).await.map(Some),
        false => Ok(None),
    };
    let stays = |what: &str, fault: &Fault| {
        let next = fault.hint.clone().map(|hint| format!(" ({})", hint.worded(Door::CommandLine))).unwrap_or_default();
        print::note(&format!("{what} was not read anew and stays as it was: {fault}{next}"));
    };
    let rules = read_rules.inspect_err(|fault| stays("hob.toml", fault)).ok();
    let token = read_token.inspect_err(|fault| stays("the token", fault)).ok().flatten();
    let read = match (&rules, &token) {
        (Some(_), Some(_)) => "hob.toml and the token were",
        (Some(_), None) => "hob.toml was",
        (None, Some(_)) => "the token was",
        (None, None) => "nothing was",
    };
    server.set(home, rules, token.map(Arc::new));
    print::note(&format!("SIGHUP: {read} read anew"));
}

async fn bind(address: &str) -> Result<std::net::TcpListener, Fault> {
    // By the runtime, which resolves names without blocking other tasks.
    let bound = async { tokio::net::TcpListener::bind(address).await?.into_std() };
    bound.await.map_err(|error: std::io::Error| match error.kind() {
        std::io::ErrorKind::InvalidInput => Fault::new(Code::Usage, format!("`--listen {address}`: {error}"))
            .hint("wanted an address and a port, e.g. `127.0.0.1:8080`, or port 0 for a free one"),
        kind => {
            let fault = Fault::io(format!("listening on {address}"), &error);
            match kind {
                std::io::ErrorKind::AddrInUse => {
                    fault.hint("another program listens there: end it, or name another port; port 0 takes a free one")
                }
                std::io::ErrorKind::AddrNotAvailable => {
                    fault.hint("no interface of this machine has that address: name one that it has, e.g. `127.0.0.1`")
                }
                std::io::ErrorKind::PermissionDenied => {
                    fault.hint("this user may not listen on that port: name one from 1024 on, or port 0 for a free one")
                }
                _ => fault,
            }
        }
    })
}

fn announce(home: &Home, unix: Option<&Path>, address: Option<std::net::SocketAddr>, json: bool) {
    let (socket, token) = (home.socket(), address.map(|_| home.token()));
    if json {
        let address = address.map(|address| address.to_string());
        return print::result(
            &json!({ "pid": std::process::id(), "socket": socket, "unix": unix, "listen": address, "token": token }).to_string(),
        );
    }
    print::note(&format!("serving at {}", socket.display()));
    if let Some(unix) = unix {
        print::note(&format!("  and at {}", unix.display()));
    }
    if let (Some(address), Some(token)) = (address, token) {
        print::note(&format!("  and on http://{address}, for requests with the token in {}", token.display()));
        if !address.ip().is_loopback() {
            print::note("  warning: other machines reach this address, and what is sent to it, the token too, is not encrypted");
        }
    }
}
