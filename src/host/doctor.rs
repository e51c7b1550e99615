//! `hob doctor`: tests on this machine what pods need.
//!
//! It starts the same processes as a pod, without a recipe, and ends them again.

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

/// The Python versions that the runner supports.
const PYTHONS: &str = ">=3.9";

impl Host {
    /// Tests on this machine everything that a pod needs, and reports what works, what does not, and what to
    /// do about it. It usually takes less than a second; each part has a time limit. It fetches and changes
    /// nothing.
    ///
    /// Errors: `io`, `disk_full`, if nothing could be tested for lack of a folder.
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

    /// Makes a zygote without packages, which is ready when it can be forked.
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
