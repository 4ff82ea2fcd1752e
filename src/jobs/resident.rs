//! What the process takes of the machine's memory.

use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};

/// Reads how many bytes are taken; `None`: the machine does not say.
pub type Resident = Box<dyn Fn() -> Option<u64> + Send + Sync>;

/// Of this process: what is resident, code and caches and stacks as well.
pub fn of_this_process() -> Option<u64> {
    let this = sysinfo::get_current_pid().ok()?;
    let mut system = System::new().ok()?;
    let memory = ProcessRefreshKind::nothing().with_memory().without_tasks();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[this]), false, memory);
    system.process(this).map(sysinfo::Process::memory)
}

#[cfg(test)]
mod tests {
    use super::of_this_process;

    #[test]
    fn a_process_takes_some_memory() {
        let taken = of_this_process().unwrap();
        assert!((1 << 20..1 << 40).contains(&taken), "{taken} bytes");
    }
}
