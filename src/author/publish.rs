//! `hob publish`: puts a packed recipe and its models, signed by their publisher, into a repository folder.
//!
//! Files are written first, the role that names them next, so that no client ever reads of a file that is not
//! there.

use crate::disk::look;
use std::{
    fs::{self, File},
    io::{Read, Write},
    path::Path,
};

use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{
    keys::Keys,
    pack::{Packed, check_model},
    repository::Step,
    signed::Role,
};
use crate::{
    model::{Code, Digest, Fault, Progress, Step as ProgressStep, act, hint, limits, manifest::spec::ModelSpec},
    shelf::{
        durable,
        repository::{Custom, ModelTarget},
    },
};

/// The result of a publish.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Published {
    /// Target path of the bundle.
    pub target: String,
    pub sha256: Digest,
    /// Whether exactly this was published before, so that nothing changed.
    pub already: bool,
}

/// Publishes a packed recipe. Its models are taken from the folder `models`, except those that state an
/// address.
///
/// Errors: `already_published` for the same version with other bytes; `key_invalid` if the repository gave
/// the publisher's name to another key; `invalid_recipe` for a model; and the faults that a client would
/// report about the result.
pub async fn publish(
    dir: &Path,
    keys: &Keys,
    packed: &Packed,
    models: &Path,
    now: Timestamp,
    progress: &dyn Progress,
) -> Result<Published, Fault> {
    let manifest = &packed.manifest;
    let publisher = manifest.name.publisher();
    let mut step = Step::begin(dir, keys, now).await?;
    let Some(there) = step.publisher_keys(publisher)? else {
        let fault = Fault::new(Code::KeyInvalid, format!("the repository in {} has no publisher `{publisher}`", dir.display()));
        // A user without any of the publisher's keys needs one made.
        if !look::is_there(&keys.path(publisher))? {
            return Err(fault.hint(hint![
                act::repo_make_publisher(dir.display(), publisher, keys.folder().display()),
                " makes its key and gives it the name"
            ]));
        }
        let public = keys.load(publisher)?.public();
        return Err(fault.hint(hint!["its maintainer adds one: ", act::repo_add_publisher(publisher, public)]));
    };
    let key = keys.load(publisher)?;
    if !there.contains(&key.id()?) {
        return Err(Fault::new(
            Code::KeyInvalid,
            format!("the key in {} is {}; `{publisher}` signs here with {}", keys.path(publisher).display(), key.id()?, there.join(", ")),
        )
        .hint("use the key that the repository knows"));
    }

    let (target, sha256) = (format!("{}/{}.hob", manifest.name, manifest.version), packed.digest());
    let before = step.publisher(publisher)?;
    let fresh = before.is_none();
    let mut role = before.map_or_else(|| Role::new("targets", now, limits::OFFLINE_ROLE_DAYS), Ok)?;
    let signed_sha256 = |targets: &serde_json::Map<String, Value>, path: &str| {
        targets
            .get(path)
            .and_then(|target| target.get("hashes"))
            .and_then(|hashes| hashes.get("sha256"))
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let targets = role.object(&["targets"])?;
    let published = signed_sha256(targets, &target);
    if let Some(published) = &published
        && *published != sha256.hex()
    {
        return Err(Fault::new(
            Code::AlreadyPublished,
            format!(
                "`{}` {} is published already, with other bytes (sha256 {published}; this is {sha256})",
                manifest.name, manifest.version
            ),
        )
        .hint(hint!["a version never changes: raise ", act::version(), " and publish again"]));
    }

    let folder = dir.join("targets").join(publisher).join(manifest.name.name());
    durable::make_folder(&folder)?;
    let file = folder.join(format!("{sha256}.{}.hob", manifest.version));
    if durable::read(&file, limits::BUNDLE_BYTES_MAX)?.as_deref() != Some(packed.bytes.as_slice()) {
        durable::replace(&file, &packed.bytes)?;
    }
    for model in manifest.models.iter().filter(|model| model.from.is_none()) {
        copy_model(&models.join(&model.name), &folder.join(format!("{0}.{0}.model", model.sha256)), model, progress)?;
    }
    if published.is_some() {
        return Ok(Published { target, sha256, already: true });
    }

    let custom = Custom {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        hob: manifest.hob.clone(),
        summary: manifest.summary.clone(),
        license: manifest.license.clone(),
        capability: manifest.capability.clone(),
        published: now,
        models: manifest.models.iter().map(ModelTarget::from).collect(),
        permissions: manifest.permissions.words(),
        files: packed.index.clone(),
    };
    let custom = serde_json::to_value(custom).map_err(|error| Fault::new(Code::Internal, error.to_string()))?;
    targets.insert(target.clone(), json!({ "length": packed.bytes.len(), "hashes": { "sha256": sha256.hex() }, "custom": custom }));
    for model in manifest.models.iter().filter(|model| model.from.is_none()) {
        let path = format!("{}/{}.model", manifest.name, model.sha256);
        targets.insert(path, json!({ "length": model.bytes, "hashes": { "sha256": model.sha256.hex() } }));
    }
    if !fresh {
        role.renew(now, limits::OFFLINE_ROLE_DAYS)?;
    }
    let (bytes, version) = (role.sign(&[&key])?, role.version()?);
    if bytes.len() as u64 > limits::TARGETS_BYTES_MAX {
        return Err(Fault::new(
            Code::TooLarge,
            format!("with this version the role of `{publisher}` is {} bytes; clients take {}", bytes.len(), limits::TARGETS_BYTES_MAX),
        )
        .hint("bundles with fewer files make smaller roles"));
    }
    step.put(publisher, version, bytes)?;
    step.finish(&[publisher]).await?;
    Ok(Published { target, sha256, already: false })
}

/// Copies a model beside the bundle, unless the right one is there. It verifies what it writes, and not what
/// was read before.
fn copy_model(from: &Path, to: &Path, model: &ModelSpec, progress: &dyn Progress) -> Result<(), Fault> {
    if look::is_there(to)? && check_model(to, model).is_ok() {
        return Ok(());
    }
    check_model(from, model)?;
    let failed = |error: &std::io::Error| Fault::io(format!("copying model `{}` to {}", model.name, to.display()), error);
    let label = format!("copying model {}", model.name);
    progress.step(ProgressStep::Started { label: label.clone(), total_bytes: Some(model.bytes) });
    let copied = || -> std::io::Result<(tempfile::NamedTempFile, Digest)> {
        let mut source = File::open(from)?;
        let folder = to.parent().unwrap_or_else(|| Path::new("."));
        let mut half = tempfile::Builder::new()
            .prefix(".half-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(folder)?;
        let mut hasher = Sha256::new();
        let mut chunk = vec![0; limits::COPY_CHUNK_BYTES];
        let mut done = 0;
        loop {
            let count = source.read(&mut chunk)?;
            if count == 0 {
                break;
            }
            hasher.update(&chunk[..count]);
            half.write_all(&chunk[..count])?;
            done += count as u64;
            progress.step(ProgressStep::Advanced { label: label.clone(), done_bytes: done });
        }
        half.as_file().sync_all()?;
        Ok((half, Digest::finish(hasher)))
    };
    let (half, found) = copied().map_err(|error| failed(&error))?;
    progress.step(ProgressStep::Finished { label });
    if found != model.sha256 {
        return Err(Fault::new(Code::InvalidRecipe, format!("model `{}` at {} changed while it was copied", model.name, from.display())));
    }
    half.persist(to).map_err(|error| failed(&error.error))?;
    durable::sync_folder(to.parent().unwrap_or_else(|| Path::new("."))).map_err(|error| failed(&error))?;
    fs::metadata(to).map(|_| ()).map_err(|error| failed(&error))
}
