//! Pods that take all they can get: memory, processes, room for files. Each ends, or is stopped, and nobody
//! else notices.

use hob::model::Code;
use serde_json::json;

use super::ordinary;
use crate::support::call;

/// Both in one program, because the neighbours of a bomb are asked while it goes off.
const BOMBER: &str = r#"
import errno, os, time
class Subject:
    def run(self, input):
        if input == "memory":
            held = []
            while len(held) < 512:
                held.append(bytearray(b"x" * (4 << 20)))
                time.sleep(0.002)
            return "ALLOWED"
        if input == "nameless":
            # Files without a name, which nothing maps; then some that are mapped and that nobody has open.
            import mmap
            held = []
            while len(held) < 256:
                file = os.memfd_create("nameless")
                os.posix_fallocate(file, 0, 4 << 20)
                held.append(file if len(held) % 2 else (mmap.mmap(file, 4 << 20), os.close(file)))
                time.sleep(0.005)
            time.sleep(5)
            return "ALLOWED"
        if input == "sockets":
            import socket
            held, sent = [], 0
            while len(held) < 4096:
                try:
                    pair = socket.socketpair()
                except OSError as error:
                    time.sleep(2)
                    return [sent, errno.errorcode[error.errno]]
                held.append(pair)
                for one in pair:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)
                    one.setblocking(False)
                    try:
                        while True:
                            sent += one.send(b"x" * 65536)
                    except BlockingIOError:
                        pass
                    except OSError as error:
                        return [sent, errno.errorcode[error.errno]]
                time.sleep(0.002)
            time.sleep(5)
            return [sent, "ALLOWED"]
        if input == "processes":
            children = 0
            for _ in range(400):
                try:
                    if os.fork() == 0:
                        time.sleep(600)
                        os._exit(0)
                    children += 1
                except OSError as error:
                    return [children, errno.errorcode[error.errno]]
            # Counted by the host, where the kernel does not.
            time.sleep(30)
            return [children, "ALLOWED"]
        if input == "scratch":
            written = 0
            try:
                for number in range(64):
                    with open(f"file-{number}", "wb") as file:
                        os.posix_fallocate(file.fileno(), 0, 64 << 20)
                    written += 64
            except OSError as error:
                return [written, errno.errorcode[error.errno]]
            return [written, "ALLOWED"]
        return "fine"
"#;

#[tokio::test]
async fn a_memory_bomb_is_killed_and_said_to_be_one() {
    let rig = ordinary::rig().await;
    let bomb = rig.pool("bomb", BOMBER, "memory_bytes = 134217728", "");
    let fault = rig.host.call(call(&bomb, json!("memory"))).await.unwrap_err();
    assert_eq!(fault.code, Code::OutOfMemory, "{fault:?}");
    assert_eq!(rig.host.call(call(&bomb, json!(""))).await.unwrap().output.into_value(), "fine");
    rig.close().await;
}

#[tokio::test]
async fn memory_that_no_mapping_shows_is_counted() {
    let rig = ordinary::rig().await;
    let bomb = rig.pool("bomb", BOMBER, "memory_bytes = 134217728", "");
    let fault = rig.host.call(call(&bomb, json!("nameless"))).await.unwrap_err();
    assert_eq!(fault.code, Code::OutOfMemory, "{fault:?}");
    match rig.host.call(call(&bomb, json!("sockets"))).await {
        Err(fault) => assert_eq!(fault.code, Code::OutOfMemory, "{fault:?}"),
        // Few descriptors, each with little memory: then the limit is not reached.
        Ok(outcome) => {
            let said = outcome.output.into_value();
            assert!(said[0].as_u64().unwrap() <= 134_217_728 && said[1] != "ALLOWED", "{said}");
        }
    }
    assert_eq!(rig.host.call(call(&bomb, json!(""))).await.unwrap().output.into_value(), "fine");
    rig.close().await;
}

#[test]
fn memory_of_an_ordinary_user_that_no_mapping_shows_is_counted() {
    ordinary::once_more("sandbox::bombs::memory_that_no_mapping_shows_is_counted");
}

#[tokio::test]
async fn a_fork_bomb_stops_at_its_limit_and_leaves_nothing() {
    let rig = ordinary::rig().await;
    let bomb = rig.pool("bomb", BOMBER, "processes = 24", "");
    let beside = rig.pool("beside", BOMBER, "", "");
    match rig.host.call(call(&bomb, json!("processes"))).await {
        Ok(outcome) => {
            let said = outcome.output.into_value();
            assert!(said[0].as_u64().unwrap() <= 24 && said[1] == "EAGAIN", "{said}");
        }
        Err(fault) => {
            println!("{fault:?}");
            assert!(fault.message.contains("process"), "{fault:?}");
        }
    }
    assert_eq!(rig.host.call(call(&beside, json!(""))).await.unwrap().output.into_value(), "fine");
    rig.close().await;
}

#[tokio::test]
async fn a_full_scratch_folder_is_full_for_its_pod_alone() {
    let rig = ordinary::rig().await;
    let (full, beside) = (rig.pool("full", BOMBER, "", ""), rig.pool("beside", BOMBER, "", ""));
    let said = rig.host.call(call(&full, json!("scratch"))).await.unwrap().output.into_value();
    assert_eq!(said[1], "ENOSPC", "{said}");
    assert!(said[0].as_u64().unwrap() <= 1024, "{said}");
    assert_eq!(rig.host.call(call(&beside, json!(""))).await.unwrap().output.into_value(), "fine");
    rig.close().await;
}

#[test]
fn a_memory_bomb_of_an_ordinary_user_is_killed() {
    ordinary::once_more("sandbox::bombs::a_memory_bomb_is_killed_and_said_to_be_one");
}

#[test]
fn a_fork_bomb_of_an_ordinary_user_stops() {
    ordinary::once_more("sandbox::bombs::a_fork_bomb_stops_at_its_limit_and_leaves_nothing");
}
