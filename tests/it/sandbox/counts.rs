//! Resources that the kernel counts per user, exhausted by one pod: the host and another recipe do not
//! notice.

use hob::model::limits::{POD_DESCRIPTORS_MAX, POD_SIGNALS_MAX};
use serde_json::json;

use super::ordinary;

/// Takes all that it can get of each resource, and keeps it.
const GRABBER: &str = r#"
import array, ctypes, errno, os, signal, socket
libc = ctypes.CDLL(None, use_errno=True)
libc.pthread_self.restype = ctypes.c_ulong
held = []
def until_refused(act, most):
    for done in range(most):
        try:
            act()
        except OSError as error:
            return [done, errno.errorcode[error.errno]]
    return [most, "ALLOWED"]
def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result
class Subject:
    def run(self, input):
        nothing = os.open("/dev/null", os.O_RDONLY)
        passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [nothing] * 250))]
        def fly():
            held.append(socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            held[-1][0].sendmsg([b"x"], passed)
        number, mine = signal.SIGRTMIN + 1, ctypes.c_ulong(libc.pthread_self())
        def queue_one():
            refused = libc.pthread_sigqueue(mine, number, ctypes.c_void_p(0))
            if refused:
                raise OSError(refused, "refused")
        signal.pthread_sigmask(signal.SIG_BLOCK, [number])
        queue = (ctypes.c_long * 8)(0, 10, 1024)
        copies = []
        said = {
            "signals": until_refused(queue_one, 1 << 16),
            "queues": until_refused(lambda: checked(libc.mq_open(b"/q%d" % os.urandom(1)[0], os.O_CREAT | os.O_RDWR, 0o600, queue)), 400),
            "watches": until_refused(lambda: held.append(checked(libc.inotify_init())), 256),
            "flying": until_refused(fly, 400),
            "descriptors": until_refused(lambda: copies.append(os.dup(nothing)), 1 << 16),
        }
        for copy in copies:
            os.close(copy)
        return said
"#;

const BESIDE: &str = "class Subject:\n    def run(self, input):\n        return 'fine'\n";

#[tokio::test]
async fn what_one_pod_takes_of_its_users_counts_another_recipe_still_has() {
    let rig = ordinary::rig().await;
    let (grabber, beside) = (rig.python("grabber", GRABBER, false), rig.python("beside", BESIDE, false));
    let _alone = ordinary::ON_THEIR_WAY.write().await;
    let said = rig.run(&grabber, json!({})).await.unwrap().output.into_value();
    println!("{said}");
    let taken = |what: &str| (said[what][0].as_u64().unwrap(), said[what][1].as_str().unwrap().to_owned());
    assert_eq!(taken("watches"), (0, "EPERM".to_owned()), "{said}");
    assert_eq!(taken("signals").1, "EAGAIN", "{said}");
    assert!(taken("signals").0 <= POD_SIGNALS_MAX, "{said}");
    // Each took 250; one more than the bound is allowed, because the kernel checks before it counts. Root is
    // exempt.
    if !ordinary::is_root() {
        assert_eq!(taken("flying").1, "ETOOMANYREFS", "{said}");
        assert!(taken("flying").0 * 250 <= POD_DESCRIPTORS_MAX + 250, "{said}");
    }
    assert_eq!(taken("descriptors").1, "EMFILE", "{said}");
    assert!(taken("descriptors").0 < POD_DESCRIPTORS_MAX, "{said}");
    assert_ne!(taken("queues").1, "ALLOWED", "{said}");
    assert_eq!(rig.run(&beside, json!({})).await.unwrap().output.into_value(), "fine");
    assert_eq!(rig.host.pods().len(), 2, "the one that took it all is there still");
    rig.close().await;
}

#[test]
fn nor_does_it_for_an_ordinary_user() {
    let _alone = ordinary::ON_THEIR_WAY.blocking_write();
    ordinary::once_more("sandbox::counts::what_one_pod_takes_of_its_users_counts_another_recipe_still_has");
}
