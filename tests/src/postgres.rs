//! A real PostgreSQL in a folder of its own, reached through a Unix socket only.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

/// As it stands in the guide under "Example Monitoring Query".
pub const FAILED: &str = "\
-- Sessions failed in last hour
SELECT
    COUNT(*) as failed_count,
    error_message
FROM therapy_sessions
WHERE status = 'failed'
  AND updated_at > NOW() - INTERVAL '1 hour'
GROUP BY error_message
ORDER BY failed_count DESC;
";
/// As it stands in the guide under "High Retry Exhaustion Rate".
pub const EXHAUSTED: &str = "\
SELECT error_message, COUNT(*)
FROM therapy_sessions
WHERE error_message LIKE '%Retry exhausted%'
  AND created_at > NOW() - INTERVAL '1 hour'
GROUP BY error_message;
";

/// A database server that is ended with its test.
pub struct Postgres {
    programs: PathBuf,
    folder: PathBuf,
}

/// Where the newest release has its programs; Debian puts none of them into the `PATH`.
fn programs() -> PathBuf {
    let releases =
        std::fs::read_dir("/usr/lib/postgresql").map(|all| all.flatten().map(|entry| entry.path().join("bin")));
    let mut found: Vec<PathBuf> = releases.into_iter().flatten().filter(|bin| bin.join("initdb").exists()).collect();
    found.sort();
    found.pop().expect("PostgreSQL is installed: run ./dev setup")
}

/// A command under the user that PostgreSQL insists on: it will not run as root.
fn as_postgres(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program).current_dir("/");
    command
}

fn output_of(command: &mut Command) -> String {
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

impl Postgres {
    /// Makes a cluster and starts it.
    ///
    /// # Panics
    /// If it does not come up.
    #[must_use]
    pub fn start() -> Self {
        let programs = programs();
        // Not in the test's own folder: its server's user could not enter that, and a socket's path must be short.
        let made = output_of(as_postgres(Path::new("mktemp")).args(["-d", "/tmp/roomscribe-postgres.XXXXXX"]));
        let server = Self { programs, folder: PathBuf::from(made.trim_end()) };
        let (data, log) = (server.folder.join("data"), server.folder.join("log"));
        output_of(server.command("initdb").arg("-D").arg(&data).args([
            "-U",
            "postgres",
            "--auth=trust",
            "--no-sync",
            "-E",
            "UTF8",
        ]));
        assert!(server.launch(), "PostgreSQL does not start: {}", std::fs::read_to_string(log).unwrap_or_default());
        server
    }

    fn launch(&self) -> bool {
        let (data, log) = (self.folder.join("data"), self.folder.join("log"));
        let options = format!("-c listen_addresses='' -c fsync=off -k {}", self.folder.display());
        let mut start = self.command("pg_ctl");
        // A server that held this test's pipes would never let its output end.
        let start = start.arg("start").arg("-D").arg(&data).arg("-l").arg(&log).args(["-w", "-o", &options]);
        let started = start.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).status();
        started.is_ok_and(|status| status.success())
    }

    /// What to call it by; nobody asks for a password.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres:///postgres?host={}&user=postgres", self.folder.display())
    }

    /// The server's first process and those that it has made.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn processes(&self) -> Vec<Pid> {
        let file = std::fs::read_to_string(self.folder.join("data/postmaster.pid")).expect("it runs");
        let first: i32 = file.lines().next().and_then(|line| line.parse().ok()).expect("a process id");
        let first = Pid::from_raw(first).expect("a process id");
        let made = crate::children_of(first.as_raw_nonzero().get().unsigned_abs()).into_iter().map(|(pid, _)| pid);
        std::iter::once(first).chain(made).collect()
    }

    /// Sends every process of it a signal.
    pub fn signal(&self, signal: Signal) {
        for process in self.processes() {
            kill_process(process, signal).ok();
        }
    }

    /// Kills it without warning, all of it.
    pub fn kill(&self) {
        let processes = self.processes();
        self.signal(Signal::KILL);
        crate::wait_for("PostgreSQL to be dead", || {
            processes.iter().all(|pid| crate::stat(*pid).is_none_or(|stat| stat.state == 'Z')).then_some(())
        });
    }

    /// Starts it again after [`Postgres::kill`].
    pub fn restart(&self) {
        crate::wait_for("PostgreSQL to be back", || self.launch().then_some(()));
    }

    fn command(&self, program: &str) -> Command {
        as_postgres(&self.programs.join(program))
    }

    /// What `psql` prints for these statements: a row a line, its fields as they are.
    ///
    /// # Panics
    /// If they fail.
    #[must_use]
    pub fn ask(&self, sql: &str) -> Vec<Vec<String>> {
        let mut psql = self.command("psql");
        psql.arg("-h").arg(&self.folder).args(["-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1"]);
        let printed = output_of(psql.args(["-U", "postgres", "-d", "postgres", "-c", sql]));
        printed.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let data = self.folder.join("data");
        self.command("pg_ctl").arg("stop").arg("-D").arg(data).args(["-m", "immediate", "-w", "-s"]).status().ok();
        std::fs::remove_dir_all(&self.folder).ok();
    }
}
