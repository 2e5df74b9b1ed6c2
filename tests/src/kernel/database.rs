//! PostgreSQL on the shared disk: the database as it lies there before the first start, and a client that remembers what was committed.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use super::cluster::MOUNTED;
use super::history::Gap;
use crate::command::run;
use crate::trouble::{Result, Trouble, While as _};
use crate::wait::eventually;

/// The address that the database of [`resource`] is served at.
pub const ADDRESS: &str = "10.77.0.100";

/// How long the client waits for a commit, and for a connection, before it begins anew.
const ANSWER: Duration = Duration::from_secs(2);

/// What fits into a small guest, and lets clients in; everything that durability rests on is as PostgreSQL has it by itself.
const SETTINGS: &str = "
listen_addresses = '*'
unix_socket_directories = '/tmp'
max_connections = 10
shared_buffers = 8MB
min_wal_size = 32MB
max_wal_size = 64MB
";

/// Where this machine has PostgreSQL's programs.
pub fn programs() -> Result<String> {
    let folders = std::fs::read_dir("/usr/lib/postgresql").map(|entries| entries.flatten().collect::<Vec<_>>());
    let newest = folders.unwrap_or_default().into_iter().map(|entry| entry.path().join("bin")).max();
    let newest = newest.filter(|folder| folder.join("initdb").exists());
    newest.map(|folder| folder.to_string_lossy().into_owned()).ok_or_else(|| {
        Trouble::new("this test NEEDS postgresql: it was NOT RUN; install this package, or use tests/run")
    })
}

/// Makes a database with page checksums and an empty table in a folder.
pub fn create(folder: &Path) -> Result<()> {
    let bin = programs()?;
    let data = folder.join("main");
    let data = data.to_string_lossy();
    run("chown", &["postgres:", &folder.to_string_lossy()])?;
    let as_postgres = |program: &str, arguments: &[&str]| {
        let program = format!("{bin}/{program}");
        run("runuser", &[&["-u", "postgres", "--", program.as_str()], arguments].concat())
    };
    as_postgres("initdb", &["-D", &data, "-k", "-A", "trust", "-U", "postgres", "--locale=C", "--no-sync"])?;
    let append = |file: &str, text: &str| -> Result<()> {
        let file = folder.join("main").join(file);
        let mut file = std::fs::File::options().append(true).open(file).to("configure the database")?;
        file.write_all(text.as_bytes()).to("configure the database")
    };
    append("postgresql.conf", SETTINGS)?;
    append("pg_hba.conf", "host all all 10.0.0.0/8 trust\n")?;
    let table = folder.join("table.sql");
    std::fs::write(&table, "CREATE TABLE rows (number bigint PRIMARY KEY);\n").to("write the table")?;
    let single = format!("{bin}/postgres --single -D {data} postgres <{} >/dev/null", table.display());
    run("runuser", &["-u", "postgres", "--", "/bin/sh", "-c", &single]).map(drop)
}

/// The database as a resource.
pub fn resource() -> Result<String> {
    let bin = programs()?;
    Ok(format!(
        r#"Process(
            name: "postgres",
            command: ["{bin}/postgres", "-D", "{MOUNTED}/main"],
            user: "postgres",
            stop_signal: "INT",
            ready: Command(["{bin}/pg_isready", "-q", "-h", "{ADDRESS}"]),
            check: Tcp("{ADDRESS}:5432"),
            monitoring: (every: "2s"),
        )"#
    ))
}

/// Where a client is, and where its database.
#[derive(Clone)]
struct Place {
    namespace: String,
    address: String,
}

impl Place {
    /// A psql that answers with values alone.
    fn psql(&self, more: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace, "psql", "-h", &self.address, "-U", "postgres", "-qAt"])
            .args(more);
        command.env("PGCONNECT_TIMEOUT", ANSWER.as_secs().to_string());
        command
    }
}

/// A client that commits numbered rows, one after the other.
pub struct DatabaseClient {
    place: Place,
    committed: Arc<Mutex<Vec<(SystemTime, u64)>>>,
    stop: Arc<AtomicBool>,
    asking: Option<JoinHandle<()>>,
}

impl DatabaseClient {
    /// Begins, from a network namespace, with the database at an address.
    pub fn start(namespace: &str, address: &str) -> Self {
        let committed = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let place = Place { namespace: namespace.to_owned(), address: address.to_owned() };
        let (list, ended, there) = (Arc::clone(&committed), Arc::clone(&stop), place.clone());
        let asking = std::thread::spawn(move || {
            let mut session = None;
            for number in 1.. {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                session = session.or_else(|| Session::open(&there).ok());
                if session.as_mut().is_some_and(|session: &mut Session| session.commit(number)) {
                    list.lock().unwrap_or_else(PoisonError::into_inner).push((SystemTime::now(), number));
                } else {
                    session = None;
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        });
        DatabaseClient { place, committed, stop, asking: Some(asking) }
    }

    /// How many rows were committed.
    pub fn committed(&self) -> usize {
        self.committed.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The times between each two commits of the latest, from the `since`-th on.
    pub fn gaps(&self, since: usize) -> Vec<Gap> {
        let list = self.committed.lock().unwrap_or_else(PoisonError::into_inner);
        let from = since.saturating_sub(1).min(list.len());
        list[from..].windows(2).map(|pair| Gap { from: pair[0].0, to: pair[1].0 }).collect()
    }

    /// Waits until some more rows were committed.
    pub fn until_served(&self) {
        let before = self.committed();
        eventually("the database commits", || if self.committed() > before + 2 { Ok(()) } else { Err(before) });
    }

    /// Ends it, and has the database tell what it has. An error if a committed row is missing.
    pub fn judge(mut self) -> Result<()> {
        self.end();
        let output =
            self.place.psql(&["-c", "SELECT number FROM rows"]).stdin(Stdio::null()).output().to("run psql")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let rows: BTreeSet<u64> = text.lines().filter_map(|line| line.parse().ok()).collect();
        let committed = self.committed.lock().unwrap_or_else(PoisonError::into_inner);
        let lost: Vec<u64> =
            committed.iter().map(|(_, number)| *number).filter(|number| !rows.contains(number)).collect();
        if lost.is_empty() && !rows.is_empty() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(Trouble::new(format!("of {} committed rows {} are lost: {lost:?} {said}", committed.len(), lost.len())))
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(asking) = self.asking.take() {
            let _ = asking.join();
        }
    }
}

impl Drop for DatabaseClient {
    fn drop(&mut self) {
        self.end();
    }
}

/// A psql that stays connected.
struct Session {
    psql: Child,
    input: ChildStdin,
    answers: Receiver<String>,
}

impl Session {
    fn open(place: &Place) -> Result<Self> {
        let mut psql = place
            .psql(&["-v", "ON_ERROR_STOP=1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .to("run psql")?;
        let (Some(input), Some(output)) = (psql.stdin.take(), psql.stdout.take()) else {
            return Err(Trouble::new("psql without input and output"));
        };
        let (tell, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Session { psql, input, answers })
    }

    /// Commits a row; whether that was acknowledged.
    fn commit(&mut self, number: u64) -> bool {
        let asked = writeln!(self.input, "INSERT INTO rows VALUES ({number}) RETURNING number;");
        asked.is_ok() && self.answers.recv_timeout(2 * ANSWER).is_ok_and(|line| line == number.to_string())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.psql.kill();
        let _ = self.psql.wait();
    }
}
