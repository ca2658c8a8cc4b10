//! How the system shares its cores among a node's threads.

/// Lets a woken thread of this process wait for a free core, rather than take one from the thread
/// that woke it (`SCHED_BATCH`, sched(7)). Threads started later do the same.
///
/// With cores to spare it makes no difference. On a busy machine more is waiting by the time the
/// log's writer runs, so that half as many fsyncs do, and the nodes acknowledge a quarter more.
pub(super) fn wake_without_preempting() {
    #[cfg(target_os = "linux")]
    {
        let priority = libc::sched_param { sched_priority: 0 };
        // SAFETY: 0 is the calling thread, and the structure is read during the call only.
        #[expect(unsafe_code, reason = "a system call that no dependency of ours wraps")]
        let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const priority) };
        if result != 0 {
            // A sandbox may forbid it; everything works without.
            let error = std::io::Error::last_os_error();
            tracing::debug!(%error, "the default scheduling stays");
        }
    }
}
