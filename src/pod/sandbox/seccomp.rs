//! The system calls that a pod may not use, as BPF programs that the pod adds to itself.
//!
//! The list blocks calls that reach around files and sockets into the kernel, into other processes, or into
//! the pod's own sandbox. Every other call stays: numeric libraries use most of what there is.

use std::{collections::BTreeMap, env::consts::ARCH};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Is, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// Refused with EPERM, whatever the arguments.
const REFUSED: &[libc::c_long] = &[
    // Into other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Around the sandbox's walls.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
    // Counted for the whole of the host's user, a hundred or so: a user namespace has a count of its own,
    // which is also added to its maker's.
    libc::SYS_inotify_init1,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_inotify_init,
    libc::SYS_quotactl,
    QUOTACTL_FD,
    OPEN_TREE_ATTR,
    libc::SYS_process_mrelease,
    // Large parts of the kernel that had many vulnerabilities, and that no model needs.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Counted for the whole machine, 65,536 of them: a program that takes all leaves none to any user's
    // program.
    libc::SYS_io_setup,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // The machine.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_vhangup,
    // Memory that no other process sees, so that nothing counts it. One byte of a large page in a pipe keeps
    // the whole page. System V objects stay without any process that holds them, in a namespace whose sums
    // cannot be read from outside.
    libc::SYS_memfd_secret,
    libc::SYS_vmsplice,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_semget,
    libc::SYS_msgget,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Queues that every process that knows their name shares: the pods of one zygote share their namespace.
const SHARED_BY_NAME: &[libc::c_long] = &[libc::SYS_mq_open];

/// Newer than the crate's list, and the same on every architecture.
const QUOTACTL_FD: libc::c_long = 443;
const FCHMODAT2: libc::c_long = 452;
const OPEN_TREE_ATTR: libc::c_long = 467;

/// Mode bits with which a file runs as its owner or its group, whichever user runs it. A file that a pod
/// writes to a granted folder belongs to the pod's user, and other users of the machine may reach it.
const SET_IDS: [libc::c_int; 2] = [libc::S_ISUID as libc::c_int, libc::S_ISGID as libc::c_int];

/// Refused if the mode in that argument has one of [`SET_IDS`].
const OF_A_MODE: &[(libc::c_long, u8)] = &[
    (libc::SYS_fchmod, 1),
    (libc::SYS_fchmodat, 2),
    (FCHMODAT2, 2),
    (libc::SYS_mknodat, 2),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chmod, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_creat, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mknod, 1),
];

/// The same if the flags before the mode say that a file is made; otherwise the mode argument is arbitrary.
/// The number is the position of the flags.
const OF_A_MADE_FILE: &[(libc::c_long, u8)] = &[
    (libc::SYS_openat, 2),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, 1),
];

/// Flags that make a file; the second is `O_TMPFILE` without the bits that it shares with others.
const MAKES: [libc::c_int; 2] = [libc::O_CREAT, libc::O_TMPFILE & !libc::O_DIRECTORY];

/// Refused for any process but the caller's own, which is 0: a process of the same user may do this to any
/// other, the host included. The number is the position of the argument that names the process.
const OF_OTHERS: &[(libc::c_long, u8)] = &[
    (libc::SYS_prlimit64, 0),
    (libc::SYS_setpriority, 1),
    (libc::SYS_ioprio_set, 1),
    (libc::SYS_sched_setscheduler, 0),
    (libc::SYS_sched_setparam, 0),
    (libc::SYS_sched_setattr, 0),
    (libc::SYS_migrate_pages, 0),
    (libc::SYS_move_pages, 0),
];

/// Calls of `OF_OTHERS` whose first argument says what the other one names. Only a process may be named: 0 as
/// a group is the caller's whole group, and 0 as a user is every process of the caller's user on the machine.
/// The number means a process.
const OF_A_KIND: &[(libc::c_long, libc::c_int)] = &[(libc::SYS_setpriority, libc::PRIO_PROCESS as libc::c_int), (libc::SYS_ioprio_set, 1)];

/// The error number that means no error: the call reports success and does nothing. The cores of another
/// thread are a wish: numeric libraries set them for their own threads, and some of them end if that is
/// refused. A thread's number may name any thread, so the call is skipped for others; for the caller itself
/// (0) it is done.
const DONE: libc::c_int = 0;

/// All flags of `clone` for new namespaces.
const CLONE_NEW: &[libc::c_int] = &[
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Kinds of internet sockets that are not TCP. The low four bits of the kind count, the rest are flags.
// 10: SOCK_PACKET, deprecated
const NOT_STREAM: &[libc::c_int] = &[libc::SOCK_DGRAM, libc::SOCK_RAW, libc::SOCK_RDM, libc::SOCK_SEQPACKET, libc::SOCK_DCCP, 10];

/// The process that makes the calls.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Who {
    Pod,
    /// May have TCP sockets.
    PodWithNetwork,
    /// May enter the roots of pods. Each pod has its zygote's programs as well, and adds those of a pod.
    Zygote,
}

/// The programs of a process, to be added in this order.
///
/// Errors: a text for people, on an architecture that the filter does not know.
pub fn programs(who: Who) -> Result<Vec<Vec<u8>>, String> {
    let arch = TargetArch::try_from(ARCH).map_err(|_| format!("no filter of system calls for {ARCH}"))?;
    let made = || -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
        let mut refused: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
        if who == Who::Zygote {
            refused.remove(&libc::SYS_chroot);
            refused.extend(SHARED_BY_NAME.iter().map(|call| (*call, Vec::new())));
        }
        let is = |argument, op, value: libc::c_int| SeccompCondition::new(argument, Len::Dword, op, value as u32 as u64);
        let masked = |argument, mask: libc::c_int, value| is(argument, Is::MaskedEq(mask as u32 as u64), value);
        let clone = CLONE_NEW.iter().map(|flag| SeccompRule::new(vec![masked(0, *flag, *flag)?])).collect::<Result<_, _>>()?;
        refused.insert(libc::SYS_clone, clone);
        // These put characters into the terminal from which the host was started.
        let typing = [libc::TIOCSTI, libc::TIOCLINUX].map(|request| SeccompRule::new(vec![is(1, Is::Eq, request as libc::c_int)?]));
        refused.insert(libc::SYS_ioctl, typing.into_iter().collect::<Result<_, _>>()?);
        // Leases and notices on files that others use: a process of the file's user may take them on a file
        // that it can only read.
        let on_others = [libc::F_SETLEASE, libc::F_NOTIFY].map(|command| SeccompRule::new(vec![is(1, Is::Eq, command)?]));
        refused.insert(libc::SYS_fcntl, on_others.into_iter().collect::<Result<_, _>>()?);
        // Asking for the current one (all ones) is harmless, as is the ordinary one.
        let persona = SeccompRule::new(vec![is(0, Is::Ne, -1)?, is(0, Is::Ne, 0)?])?;
        refused.insert(libc::SYS_personality, vec![persona]);
        for (number, argument) in OF_OTHERS {
            refused.insert(*number, vec![SeccompRule::new(vec![is(*argument, Is::Ne, 0)?])?]);
        }
        for (number, process) in OF_A_KIND {
            refused.entry(*number).or_default().push(SeccompRule::new(vec![is(0, Is::Ne, *process)?])?);
        }
        for (number, argument) in OF_A_MODE {
            let rules = SET_IDS.map(|bit| SeccompRule::new(vec![masked(*argument, bit, bit)?]));
            refused.insert(*number, rules.into_iter().collect::<Result<_, _>>()?);
        }
        for (number, flags) in OF_A_MADE_FILE {
            let pairs = MAKES.into_iter().flat_map(|flag| SET_IDS.map(|bit| (flag, bit)));
            let rules = pairs.map(|(flag, bit)| SeccompRule::new(vec![masked(*flags, flag, flag)?, masked(flags + 1, bit, bit)?]));
            refused.insert(*number, rules.collect::<Result<_, _>>()?);
        }
        // Pages that the machine's administrator reserved for other programs; no bound of a pod counts them.
        refused.insert(libc::SYS_mmap, vec![SeccompRule::new(vec![masked(3, libc::MAP_HUGETLB, libc::MAP_HUGETLB)?])?]);
        let huge = libc::MFD_HUGETLB as libc::c_int;
        refused.insert(libc::SYS_memfd_create, vec![SeccompRule::new(vec![masked(1, huge, huge)?])?]);
        refused.insert(libc::SYS_socketpair, vec![SeccompRule::new(vec![is(0, Is::Ne, libc::AF_UNIX)?])?]);
        refused.insert(libc::SYS_socket, sockets(who == Who::PodWithNetwork, &is, &masked)?);
        // The host must be able to inspect what a pod holds (memory without control groups).
        refused.insert(libc::SYS_prctl, vec![SeccompRule::new(vec![is(0, Is::Eq, libc::PR_SET_DUMPABLE)?])?]);
        // Larger socket buffers are a wish that the kernel need not grant; it is not granted, and the call
        // reports no error.
        let sizes = [libc::SO_SNDBUF, libc::SO_RCVBUF, libc::SO_SNDBUFFORCE, libc::SO_RCVBUFFORCE];
        let sizes = sizes.map(|option| SeccompRule::new(vec![is(1, Is::Eq, libc::SOL_SOCKET)?, is(2, Is::Eq, option)?]));
        let cores = vec![SeccompRule::new(vec![is(0, Is::Ne, 0)?])?];
        let wishes =
            BTreeMap::from([(libc::SYS_setsockopt, sizes.into_iter().collect::<Result<_, _>>()?), (libc::SYS_sched_setaffinity, cores)]);
        // Flags and modes of these lie in memory, which no filter reads. As on a kernel without these calls,
        // callers use `clone` and `openat` instead. A zygote opens granted folders for its pods.
        let mut unknown = BTreeMap::from([(libc::SYS_clone3, Vec::new()), (libc::SYS_openat2, Vec::new())]);
        if who == Who::Zygote {
            unknown.remove(&libc::SYS_openat2);
        }
        let filter = |rules, errno: libc::c_int| {
            SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno as u32), arch)?.try_into()
        };
        let mut programs: Vec<BpfProgram> = vec![filter(refused, libc::EPERM)?, filter(unknown, libc::ENOSYS)?, filter(wishes, DONE)?];
        if cfg!(target_arch = "x86_64") {
            programs.push(other_numbers());
        }
        Ok(programs)
    };
    let programs = made().map_err(|error| error.to_string())?;
    Ok(programs.iter().map(|program| program.iter().flat_map(bytes).collect()).collect())
}

/// Refused sockets: all but local ones, and TCP if `network`.
fn sockets(
    network: bool,
    is: &impl Fn(u8, Is, libc::c_int) -> Result<SeccompCondition, seccompiler::BackendError>,
    masked: &impl Fn(u8, libc::c_int, libc::c_int) -> Result<SeccompCondition, seccompiler::BackendError>,
) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    if !network {
        return Ok(vec![SeccompRule::new(vec![is(0, Is::Ne, libc::AF_UNIX)?])?]);
    }
    let others = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6].map(|family| is(0, Is::Ne, family));
    let mut rules = vec![SeccompRule::new(others.into_iter().collect::<Result<_, _>>()?)?];
    for family in [libc::AF_INET, libc::AF_INET6] {
        // Landlock does not check other protocols of the same kind (MPTCP, SMC).
        rules.push(SeccompRule::new(vec![is(0, Is::Eq, family)?, is(2, Is::Ne, 0)?, is(2, Is::Ne, libc::IPPROTO_TCP)?])?);
        for kind in NOT_STREAM {
            rules.push(SeccompRule::new(vec![is(0, Is::Eq, family)?, masked(1, 0xf, *kind)?])?);
        }
    }
    Ok(rules)
}

/// The second set of numbers for the same calls (x32) would bypass every rule above.
fn other_numbers() -> BpfProgram {
    const LOAD: u16 = 0x20;
    const JUMP_IF_AT_LEAST: u16 = 0x35;
    const RETURN: u16 = 0x06;
    let step = |code, jt, jf, k| seccompiler::sock_filter { code, jt, jf, k };
    vec![
        step(LOAD, 0, 0, 0),
        step(JUMP_IF_AT_LEAST, 0, 1, 0x4000_0000),
        step(RETURN, 0, 0, 0x0005_0000 | libc::ENOSYS as u32),
        step(RETURN, 0, 0, 0x7fff_0000),
    ]
}

/// One instruction, in the kernel's layout.
fn bytes(step: &seccompiler::sock_filter) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..2].copy_from_slice(&step.code.to_ne_bytes());
    (bytes[2], bytes[3]) = (step.jt, step.jf);
    bytes[4..].copy_from_slice(&step.k.to_ne_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_within_what_the_kernel_takes() {
        for who in [Who::Pod, Who::PodWithNetwork, Who::Zygote] {
            for program in programs(who).unwrap() {
                // BPF_MAXINSNS; hostile pods test what the programs do.
                assert!(program.len() % 8 == 0 && program.len() / 8 <= 4096, "{}", program.len());
            }
        }
        assert_ne!(programs(Who::Pod).unwrap(), programs(Who::PodWithNetwork).unwrap());
    }
}
