//! A granted folder is only data: a listener on a socket in it, or a reader of a FIFO, never hears of the
//! pod.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    os::unix::{
        fs::{OpenOptionsExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use hob::model::{Code, limits::GRANT_COVERED_MAX, status::ZygoteState};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use serde_json::{Value, json};

use super::{acts::hostile, granted::allow, ordinary};
use crate::support::{Rig, call, within};

/// The acts that a pod tries on everything that it finds in a folder.
const TRIES: &str = r#"
import errno, os, socket, stat

def tried(act):
    try:
        return act()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))

def spoken(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.settimeout(5)
        made.connect(path)
        made.sendall(b"a pod's")
    return "connected"

def written(path):
    held = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    os.write(held, b"a pod's")
    return "written"

def read(path):
    return os.read(os.open(path, os.O_RDONLY | os.O_NONBLOCK), 10).decode()

def kind(path):
    return stat.filemode(os.stat(path).st_mode)[0]

class Subject:
    def run(self, input):
        from hob_pod import kernel
        if "folder" not in input:
            return {}
        found = {}
        for top, folders, names in os.walk(input["folder"]):
            for name in names:
                path = os.path.join(top, name)
                found[name] = {act.__name__: tried(lambda: act(path)) for act in (kind, read, written, spoken)}
        return {"found": found, "landlock": kernel.landlock_abi()}
"#;

/// A folder with a file and with special files: a socket with a listener, a FIFO with a reader.
struct Folder {
    path: PathBuf,
    listener: UnixListener,
    reader: fs::File,
}

impl Folder {
    fn new(path: PathBuf) -> Folder {
        let deep = path.join("deep");
        fs::create_dir_all(&deep).unwrap();
        fs::write(path.join("file"), "text").unwrap();
        let (listener, reader) = (listener(&deep.join("socket")), fifo(&deep.join("fifo")));
        Folder { path, listener, reader }
    }

    /// Asserts that nobody connected or wrote, and that this would have been noticed.
    fn assert_silent(&self) {
        assert_silent(&self.listener, &self.reader, &self.path.join("deep/socket"), &self.path.join("deep/fifo"));
    }
}

fn listener(path: &Path) -> UnixListener {
    let listener = UnixListener::bind(path).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

/// Makes a FIFO; returns its reading end.
fn fifo(path: &Path) -> fs::File {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    fs::File::options().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path).unwrap()
}

/// The bytes that were written to a FIFO.
fn heard(mut reader: &fs::File) -> String {
    let mut said = vec![0; 100];
    match reader.read(&mut said) {
        Ok(count) => String::from_utf8(said[..count].to_vec()).unwrap(),
        Err(error) if error.kind() == ErrorKind::WouldBlock => String::new(),
        Err(error) => panic!("{error}"),
    }
}

fn assert_silent(listener: &UnixListener, reader: &fs::File, socket: &Path, fifo: &Path) {
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "somebody came");
    assert_eq!(heard(reader), "");
    // The same acts are possible for others.
    UnixStream::connect(socket).unwrap();
    listener.accept().unwrap();
    fs::File::options().write(true).open(fifo).unwrap().write_all(b"the test's").unwrap();
    assert_eq!(heard(reader), "the test's");
}

async fn tried(rig: &Rig, recipe: &Path, folder: &Path, one_shot: bool) -> Value {
    let call = call(recipe, json!({"folder": folder}));
    let call = if one_shot { call.one_shot() } else { call };
    rig.host.call(call).await.unwrap().output.into_value()
}

fn assert_covered(said: &Value, file: &str) {
    for name in ["socket", "fifo"] {
        let came = &said["found"][name];
        assert_eq!((&came["kind"], &came["read"]), (&json!("-"), &json!("")), "{name}: {said}");
        assert!(["EACCES", "EROFS"].contains(&came["written"].as_str().unwrap()), "{name}: {said}");
        assert!(["ECONNREFUSED", "EACCES", "EROFS"].contains(&came["spoken"].as_str().unwrap()), "{name}: {said}");
    }
    assert_eq!((&said["found"]["file"]["kind"], &said["found"]["file"]["read"]), (&json!("-"), &json!(file)), "{said}");
}

/// Grants one folder for reading and one for writing, both below a temporary one, to a pod, started or
/// forked.
async fn folders_are_data(forked: bool) {
    let rig = ordinary::rig().await;
    let recipe = match forked {
        false => rig.python("tries", TRIES, false),
        true => hostile(&rig, "tries", "max = 3\npreload = [\"six\"]"),
    };
    fs::write(recipe.join("pod/subject.py"), TRIES).unwrap();
    let (books, desk) = (Folder::new(rig.folder.path().join("books")), Folder::new(rig.folder.path().join("desk")));
    assert!(books.path.starts_with("/tmp"), "the folder lies below one that pods may write to: {}", books.path.display());
    allow(&rig, &recipe, &format!("read = [\"{}\"]", books.path.display()), true);
    for file in [recipe.join("recipe.toml"), rig.folder.path().join("home/hob.toml")] {
        let text = fs::read_to_string(&file).unwrap();
        fs::write(file, text.replace("write = [", &format!("write = [\"{}\", ", desk.path.display()))).unwrap();
    }
    rig.host.call(call(&recipe, json!({}))).await.unwrap();
    if forked {
        let ready = || rig.host.status().zygotes.first().is_some_and(|zygote| zygote.state == ZygoteState::Ready);
        within(60, "pods can be forked", ready).await;
    }
    let said = tried(&rig, &recipe, &books.path, forked).await;
    assert_covered(&said, "text");
    assert_eq!(said["found"]["file"]["written"].as_str().map(|came| came == "EROFS" || came == "EACCES"), Some(true), "{said}");
    let said = tried(&rig, &recipe, &desk.path, forked).await;
    assert_covered(&said, "text");
    assert_eq!(said["found"]["file"]["written"], "written");
    assert_eq!(fs::read_to_string(desk.path.join("file")).unwrap(), "a pod's", "a folder to write is one to write");
    books.assert_silent();
    desk.assert_silent();

    if !forked {
        // Files that appear while a pod runs are not covered. The pod still cannot write to a FIFO if only
        // reading was granted, although the folder lies below one that the pod may write to; a socket is
        // closed if Landlock knows sockets.
        let (socket, pipe) = (books.path.join("later-socket"), books.path.join("later-fifo"));
        let (later, reader) = (listener(&socket), fifo(&pipe));
        let said = tried(&rig, &recipe, &books.path, false).await;
        assert_eq!(
            (&said["found"]["later-fifo"]["kind"], &said["found"]["later-fifo"]["written"]),
            (&json!("p"), &json!("EACCES")),
            "{said}"
        );
        let abi = said["landlock"].as_u64().unwrap();
        let wanted = if abi >= 9 { "EACCES" } else { "connected" };
        println!("version {abi} of Landlock: a socket made later is {wanted}");
        assert_eq!(said["found"]["later-socket"]["spoken"], wanted, "{said}");
        if abi < 9 {
            later.accept().unwrap();
        }
        assert_silent(&later, &reader, &socket, &pipe);
    }

    // More special files than can be covered.
    for number in 0..=GRANT_COVERED_MAX {
        mknodat(CWD, books.path.join(format!("many-{number}")), FileType::Fifo, Mode::RUSR, 0).unwrap();
    }
    let fault = rig.host.call(call(&recipe, json!({})).one_shot()).await.unwrap_err();
    assert_eq!(fault.code, Code::InvalidConfig, "{fault:?}");
    assert!(fault.message.contains(books.path.to_str().unwrap()) && fault.hint.is_some(), "{fault:?}");
    rig.close().await;
}

#[tokio::test]
async fn what_is_no_data_in_a_granted_folder_is_covered_for_a_started_pod() {
    folders_are_data(false).await;
}

#[tokio::test]
async fn what_is_no_data_in_a_granted_folder_is_covered_for_a_forked_pod() {
    folders_are_data(true).await;
}

#[test]
fn what_is_no_data_in_a_granted_folder_is_covered_for_a_started_pod_of_an_ordinary_user() {
    ordinary::once_more("sandbox::data::what_is_no_data_in_a_granted_folder_is_covered_for_a_started_pod");
}

#[test]
fn what_is_no_data_in_a_granted_folder_is_covered_for_a_forked_pod_of_an_ordinary_user() {
    ordinary::once_more("sandbox::data::what_is_no_data_in_a_granted_folder_is_covered_for_a_forked_pod");
}

#[tokio::test]
async fn a_socket_itself_is_not_to_be_granted() {
    let rig = ordinary::rig().await;
    let recipe = rig.python("tries", TRIES, false);
    let socket = rig.folder.path().join("socket");
    let _listener = listener(&socket);
    allow(&rig, &recipe, &format!("read = [\"{}\"]", socket.display()), true);
    let fault = rig.host.call(call(&recipe, json!({}))).await.unwrap_err();
    assert!(fault.code == Code::InvalidConfig && fault.message.contains("neither a file nor a folder"), "{fault:?}");
    rig.close().await;
}

/// The folder belongs to a group that the pod's namespace does not know, so that its maker has only the
/// owner's rights.
#[tokio::test]
async fn a_closed_folder_that_its_pod_could_open_is_refused_by_its_name() {
    if !ordinary::is_root() {
        return;
    }
    let rig = ordinary::rig().await;
    let recipe = rig.python("tries", TRIES, false);
    let desk = Folder::new(rig.folder.path().join("desk"));
    let closed = desk.path.join("deep");
    std::os::unix::fs::chown(&closed, None, Some(12_345)).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o0)).unwrap();
    for file in [recipe.join("recipe.toml"), rig.folder.path().join("home/hob.toml")] {
        let text = fs::read_to_string(&file).unwrap();
        fs::write(file, text.replace("write = [", &format!("write = [\"{}\", ", desk.path.display()))).unwrap();
    }
    let fault = rig.host.call(call(&recipe, json!({}))).await.unwrap_err();
    assert_eq!(fault.code, Code::InvalidConfig, "{fault:?}");
    assert!(fault.message.contains(closed.to_str().unwrap()), "{fault:?}");
    desk.assert_silent();
    rig.close().await;
}
