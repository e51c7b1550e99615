//! `hob doctor`: what this machine can do for pods, tried for real.
//!
//! Apart from `status.rs`, which tells of pods that there are: this starts what a pod would start, without a
//! recipe, and ends it again.

use std::time::Duration;

use tokio::time::timeout;

use super::Host;
use crate::{
    disk::make,
    model::{
        Door, Fault,
        limits::{DOCTOR_ZYGOTE_MS, SHUTDOWN_MS},
        status::{
            MemoryBound,
            doctor::{Doctor, Kept, Possible, Safe, Tool},
        },
    },
    pod::{self, Boot, Family, Program},
    shelf::{
        blocking,
        environment::{python, uv},
        files::scratch::Scratch,
        home,
    },
};

/// What the runner within pods is written for.
const PYTHONS: &str = ">=3.9";

impl Host {
    /// Tries on this machine what is around a pod, and says what holds, what does not, and what to do about
    /// it. Usually within a second; each part of it has a bound. Nothing is fetched or changed.
    ///
    /// Errors: `io`, `disk_full`, where nothing could be tried for want of a folder.
    pub async fn doctor(&self) -> Result<Doctor, Fault> {
        let inner = &self.0;
        let (machine, bounds, gpu) = blocking(|| Ok((pod::doctor::machine(), pod::doctor::bounds(), pod::doctor::gpu_files()))).await?;
        let range = PYTHONS.parse().expect("a constant range, parsed by every test of this");
        let found = python::find(&range, inner.programs.tools().python.as_deref()).await;
        let uv = match uv::look(&inner.home, inner.programs.tools().uv.as_deref()).await {
            Ok(Some(uv)) => Tool { path: Some(uv.path), version: Some(uv.version.to_string()), why: None },
            Ok(None) => none("not on PATH; Hob fetches its own copy when the first recipe with a lock is installed"),
            Err(fault) => none(&fault.message),
        };
        let python = match &found {
            Ok(python) => Tool { path: Some(python.executable.clone()), version: Some(python.version.to_string()), why: None },
            Err(fault) => none(&fault.message),
        };
        let (trial, zygotes, error) = match found {
            Ok(python) => {
                let program = Program { base: python.executable.clone(), python: python.executable, site_packages: None };
                let zygotes = self.try_a_zygote(&program).await?;
                match self.try_a_sandbox(&program).await {
                    Ok(trial) => (Some(trial), zygotes, None),
                    Err(fault) => (None, zygotes, Some(fault.message)),
                }
            }
            Err(fault) => (None, Possible { possible: false, why: Some("there is no Python".into()) }, Some(fault.message)),
        };
        let place = inner.home.clone();
        let home = match blocking(move || home::check_all(&place)).await {
            Ok(()) => Safe::default(),
            Err(fault) => Safe { why: Some(fault.message), next: fault.hint.map(|hint| hint.worded(Door::CommandLine).to_string()) },
        };
        let mut doctor = Doctor {
            confined: false,
            verdict: String::new(),
            memory: if bounds.memory { MemoryBound::Group } else { MemoryBound::Watched },
            next: Vec::new(),
            machine,
            python,
            uv,
            without: inner.pod_services.without().to_vec(),
            trial,
            bounds,
            gpu,
            zygotes,
            home,
            kept: Kept { state: inner.home.state().to_owned(), cache: inner.home.cache().to_owned(), elsewhere: inner.home.is_elsewhere() },
            files: pod::open_files(),
            serving: None,
        };
        doctor.judge(error);
        Ok(doctor)
    }

    async fn try_a_sandbox(&self, program: &Program) -> Result<crate::model::status::doctor::Trial, Fault> {
        let scratch = self.scratch_for_trials().await?;
        let folder = scratch.folder().join("trial");
        let made = folder.clone();
        blocking(move || {
            make::new_folder(&made, make::PRIVATE_FOLDER).map_err(|error| Fault::io(format!("making {}", made.display()), &error))
        })
        .await?;
        pod::doctor::examine(program, self.0.pod_services.keeper(), &folder, self.0.pod_services.without()).await
    }

    /// Makes a zygote without wheels, which is ready when it may be forked.
    async fn try_a_zygote(&self, program: &Program) -> Result<Possible, Fault> {
        let scratch = self.scratch_for_trials().await?;
        let boot = Boot {
            program,
            keeper: self.0.pod_services.keeper(),
            folder: scratch.folder().to_owned(),
            preload: &[],
            variables: Vec::new(),
            without: self.0.pod_services.without(),
            keeps: vec![Box::new(scratch)],
        };
        let (family, ready) = match Family::start(boot) {
            Ok(started) => started,
            Err(why) => return Ok(Possible { possible: false, why: Some(why) }),
        };
        let ready = timeout(Duration::from_millis(DOCTOR_ZYGOTE_MS), ready).await;
        family.close();
        // Only a process that the kernel cannot kill outlasts it.
        let _ = timeout(Duration::from_millis(SHUTDOWN_MS), family.gone()).await;
        let why = ready.unwrap_or_else(|_| Err(format!("none was ready within {DOCTOR_ZYGOTE_MS} ms"))).err();
        Ok(Possible { possible: why.is_none(), why })
    }

    async fn scratch_for_trials(&self) -> Result<Scratch, Fault> {
        let home = self.0.home.clone();
        blocking(move || Scratch::new(&home)).await
    }
}

fn none(why: &str) -> Tool {
    Tool { path: None, version: None, why: Some(why.to_owned()) }
}
