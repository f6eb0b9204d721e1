//! Filling the model folder: from folders, or from the sources of the lock file. The daemon never does this.
//!
//! A file appears under its name only when it is whole and has its checksum; a download that breaks off is taken up
//! where it stopped.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::{Entry, Models, Role, sha256_of, whole};

/// How long a source may take to answer at all.
const CONNECT: Duration = Duration::from_secs(10);
/// How often a broken download is taken up again before the next source is tried.
const RESUMES: u32 = 3;

/// Where to look, and how much to trust.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Folders, the first that has a model wins. `FILE` or `FILE.zst`.
    pub from: Vec<PathBuf>,
    /// Whether to download what no folder has.
    pub network: bool,
    /// Whether to accept a model whose checksum is not known, and to store the one found.
    pub pin: bool,
    /// Every model there is, not only the best of each role.
    pub all: bool,
    /// These roles and no others; every role if there are none.
    pub roles: Vec<Role>,
}

impl Plan {
    fn roles(&self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(|role| self.roles.is_empty() || self.roles.contains(role))
    }

    /// A demonstration of what a box can do without is worse than doing without, and what belongs to another voice model
    /// than the one installed is of no use, unless somebody asks for it.
    fn wants(&self, models: &Models, entry: &Entry) -> bool {
        let is_asked_for = self.all || self.roles.contains(&entry.role);
        let suits = |voice: &String| models.best(Role::Voice).is_ok_and(|best| best.entry.id == *voice);
        let is_of_use = || !entry.demo && entry.voice.as_ref().is_none_or(suits);
        entry.role.is_required() || is_asked_for || is_of_use()
    }
}

/// What became of one role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Which role.
    pub role: Role,
    /// The model that will be used.
    pub model: Option<String>,
    /// From where it came, or `present`.
    pub from: Option<String>,
    /// What was tried in vain, and why.
    pub tried: Vec<String>,
}

/// What a caller shows while bytes come in: the file, bytes so far, bytes in all if known.
pub type Progress<'a> = &'a mut dyn FnMut(&str, u64, Option<u64>);

/// Fills every role as well as `plan` allows: the voice models before what belongs to them.
///
/// # Errors
/// Only if the folder itself cannot be made.
pub fn fetch(models: &Models, plan: &Plan, progress: Progress<'_>) -> io::Result<Vec<Outcome>> {
    fs::create_dir_all(models.folder())?;
    Ok(plan.roles().map(|role| fetch_role(models, plan, role, progress)).collect())
}

fn fetch_role(models: &Models, plan: &Plan, role: Role, progress: Progress<'_>) -> Outcome {
    let mut outcome = Outcome { role, model: None, from: None, tried: Vec::new() };
    for files in whole(role).into_iter().filter(|files| plan.wants(models, files[0])) {
        if let Some(from) = fetch_whole(models, plan, &files, &mut outcome.tried, progress) {
            outcome.model.get_or_insert_with(|| files[0].id.clone());
            outcome.from.get_or_insert(from);
            if !plan.all {
                break;
            }
        }
    }
    outcome
}

/// Every file of one model, or none: what came of a model that cannot be had whole goes again.
fn fetch_whole(
    models: &Models,
    plan: &Plan,
    files: &[&'static Entry],
    tried: &mut Vec<String>,
    progress: Progress<'_>,
) -> Option<String> {
    let (mut from, mut came) = (Vec::new(), Vec::new());
    for entry in files {
        if models.check(entry).is_ok() {
            continue;
        }
        match fetch_one(models, plan, entry, tried, progress) {
            Some(source) => from.push(source),
            None => {
                came.iter().for_each(|path: &PathBuf| drop(fs::remove_file(path)));
                return None;
            }
        }
        came.push(models.folder().join(&entry.file));
    }
    Some(if from.is_empty() { "present".to_owned() } else { from.join(", ") })
}

fn fetch_one(
    models: &Models,
    plan: &Plan,
    entry: &'static Entry,
    tried: &mut Vec<String>,
    progress: Progress<'_>,
) -> Option<String> {
    for folder in &plan.from {
        for name in [entry.file.clone(), format!("{}.zst", entry.file)] {
            let source = folder.join(&name);
            if !source.is_file() {
                continue;
            }
            match copy(&source, models, entry).and_then(|part| accept(models, entry, &part, plan.pin)) {
                Ok(()) => return Some(source.display().to_string()),
                Err(why) => tried.push(format!("{}: {why}", source.display())),
            }
        }
    }
    if !plan.network {
        return None;
    }
    for source in &entry.sources {
        match download(source, models, entry, progress).and_then(|part| accept(models, entry, &part, plan.pin)) {
            Ok(()) => return Some(source.clone()),
            Err(why) => tried.push(format!("{source}: {why}")),
        }
    }
    None
}

fn part_of(models: &Models, entry: &Entry) -> PathBuf {
    models.folder().join(format!("{}.part", entry.file))
}

fn copy(source: &Path, models: &Models, entry: &Entry) -> io::Result<PathBuf> {
    let part = part_of(models, entry);
    let (mut from, mut to) = (File::open(source)?, File::create(&part)?);
    if source.extension().is_some_and(|e| e == "zst") {
        zstd::stream::copy_decode(from, &mut to)?;
    } else {
        io::copy(&mut from, &mut to)?;
    }
    to.sync_all()?;
    Ok(part)
}

/// Gives a whole and sound file its name.
fn accept(models: &Models, entry: &'static Entry, part: &Path, pin: bool) -> io::Result<()> {
    let sum = sha256_of(part)?;
    let refuse = |why: String| {
        fs::remove_file(part)?;
        Err(io::Error::new(io::ErrorKind::InvalidData, why))
    };
    match entry.sha256.as_str() {
        "unknown" if pin => store_pin(models.folder(), &entry.file, &sum)?,
        "unknown" => return refuse(format!("its checksum is not known; it is {sum}; accept it with --pin")),
        expected if expected == sum => {}
        expected => return refuse(format!("its checksum is {sum}, and should be {expected}")),
    }
    fs::rename(part, models.folder().join(&entry.file))?;
    File::open(models.folder())?.sync_all()
}

fn store_pin(folder: &Path, file: &str, sum: &str) -> io::Result<()> {
    let path = folder.join("pins.toml");
    let mut pins = fs::read_to_string(&path).ok().and_then(|t| t.parse::<toml::Table>().ok()).unwrap_or_default();
    pins.insert(file.into(), sum.into());
    fs::write(path, pins.to_string())
}

fn download(source: &str, models: &Models, entry: &Entry, progress: Progress<'_>) -> io::Result<PathBuf> {
    let part = part_of(models, entry);
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(CONNECT))
        .http_status_as_error(false)
        .build()
        .into();
    let mut last = io::Error::other("nothing was tried");
    for _ in 0..RESUMES {
        let have = part.metadata().map_or(0, |m| m.len());
        match continue_download(&agent, source, &part, have, entry, progress) {
            Ok(()) => return Ok(part),
            Err(why) => last = why,
        }
        // Only a download that got somewhere is worth taking up again.
        if part.metadata().map_or(0, |m| m.len()) <= have {
            break;
        }
    }
    Err(last)
}

fn continue_download(
    agent: &ureq::Agent,
    source: &str,
    part: &Path,
    have: u64,
    entry: &Entry,
    progress: Progress<'_>,
) -> io::Result<()> {
    let mut response = agent.get(source).header("Range", format!("bytes={have}-")).call().map_err(io::Error::other)?;
    let (mut at, append) = match response.status().as_u16() {
        206 => (have, true),
        200 => (0, false),
        // Nothing is left to send: the file was whole already.
        416 if have > 0 => return Ok(()),
        status => return Err(io::Error::other(format!("the server answered {status}"))),
    };
    let total = response.body().content_length().map(|rest| at + rest).or(entry.size);
    let mut file = OpenOptions::new().create(true).write(true).append(append).truncate(!append).open(part)?;
    let mut body = response.body_mut().as_reader();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = body.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        file.write_all(&buffer[..read])?;
        at += read as u64;
        progress(&entry.file, at, total);
    }
    file.sync_all()?;
    if total.is_some_and(|total| at < total) {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed before the end"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::ranked;
    use super::*;
    use shared::paths::Root;
    use std::net::TcpListener;

    /// An HTTP server on loopback that closes each connection after `most` bytes of body.
    fn server(content: Vec<u8>, most: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().take(10) {
                let mut stream = stream.unwrap();
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).unwrap();
                let request = String::from_utf8_lossy(&request[..length]).to_lowercase();
                let from: usize =
                    request.split("range: bytes=").nth(1).unwrap().split('-').next().unwrap().parse().unwrap();
                let rest = &content[from..];
                let head = format!(
                    "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    rest.len()
                );
                stream.write_all(head.as_bytes()).unwrap();
                stream.write_all(&rest[..rest.len().min(most)]).unwrap();
            }
        });
        format!("http://{address}/model")
    }

    fn entry(content: &[u8], sha256: Option<&str>) -> &'static Entry {
        let entry = ranked(Role::Vad).next().unwrap().clone();
        let sha256 = sha256.map_or_else(|| shared::seal::sha256(content), str::to_owned);
        Box::leak(Box::new(Entry { sha256, size: Some(content.len() as u64), ..entry }))
    }

    fn models() -> (tempfile::TempDir, Models) {
        let folder = tempfile::tempdir().unwrap();
        let models = Models::new(&Root::new(folder.path()));
        fs::create_dir_all(models.folder()).unwrap();
        (folder, models)
    }

    #[test]
    fn a_download_that_breaks_off_is_taken_up_where_it_stopped() {
        let content: Vec<u8> = (0..250_000u32).map(|n| (n % 251) as u8).collect();
        let (_folder, models) = models();
        let entry = entry(&content, None);
        let mut seen = 0;
        let part = download(&server(content.clone(), 100_000), &models, entry, &mut |_, at, _| seen = at).unwrap();
        accept(&models, entry, &part, false).unwrap();
        assert_eq!(seen, 250_000);
        assert_eq!(fs::read(models.folder().join(&entry.file)).unwrap(), content);
    }

    #[test]
    fn a_wrong_checksum_is_refused_and_leaves_nothing() {
        let (_folder, models) = models();
        let entry = entry(b"good", None);
        let part = download(&server(b"evil".to_vec(), 9), &models, entry, &mut |_, _, _| ()).unwrap();
        assert!(accept(&models, entry, &part, true).unwrap_err().to_string().contains("should be"));
        assert_eq!(fs::read_dir(models.folder()).unwrap().count(), 0);
    }

    #[test]
    fn an_unknown_checksum_asks_for_a_pin_and_then_holds_to_it() {
        let (_folder, models) = models();
        let entry = entry(b"model", Some("unknown"));
        let part = |models: &Models| {
            let part = part_of(models, entry);
            fs::write(&part, b"model").unwrap();
            part
        };
        assert!(accept(&models, entry, &part(&models), false).unwrap_err().to_string().contains("--pin"));
        accept(&models, entry, &part(&models), true).unwrap();
        models.check(entry).unwrap();
        fs::write(models.folder().join(&entry.file), b"other").unwrap();
        assert!(models.check(entry).is_err());
    }

    #[test]
    fn what_no_folder_has_is_named_with_where_it_was_looked_for() {
        let (_folder, models) = models();
        let from = tempfile::tempdir().unwrap();
        fs::write(from.path().join("silero_vad.onnx"), b"damaged").unwrap();
        let plan = Plan { from: vec![from.path().into()], ..Plan::default() };
        let outcomes = fetch(&models, &plan, &mut |_, _, _| ()).unwrap();
        assert!(outcomes.iter().all(|o| o.model.is_none()));
        assert!(outcomes[1].tried[0].contains("silero_vad.onnx") && outcomes[1].tried[0].contains("checksum"));
    }

    #[test]
    fn half_a_model_is_none() {
        let (_folder, models) = models();
        let from = tempfile::tempdir().unwrap();
        let pair: Vec<&'static Entry> = ["one.npz", "two.npz"]
            .map(|file| -> &'static Entry {
                let entry = Entry { file: file.into(), ..entry(file.as_bytes(), None).clone() };
                Box::leak(Box::new(entry))
            })
            .to_vec();
        let plan = Plan { from: vec![from.path().into()], ..Plan::default() };
        let fetched = || fetch_whole(&models, &plan, &pair, &mut Vec::new(), &mut |_, _, _| ());
        fs::write(from.path().join("one.npz"), "one.npz").unwrap();
        assert_eq!(fetched(), None);
        assert_eq!(fs::read_dir(models.folder()).unwrap().count(), 0);
        fs::write(from.path().join("two.npz"), "two.npz").unwrap();
        assert!(fetched().is_some_and(|from| from.contains("one.npz, ") && from.ends_with("two.npz")));
        assert_eq!(fetched().as_deref(), Some("present"));
    }

    #[test]
    fn a_plda_is_wanted_beside_the_voice_model_it_belongs_to_or_if_somebody_asks() {
        let (_folder, models) = models();
        let plda = whole(Role::Plda)[0][0];
        let wants = |plan: &Plan| plan.wants(&models, plda);
        assert!(!wants(&Plan::default()), "there is no voice model");
        assert!(wants(&Plan { roles: vec![Role::Plda], ..Plan::default() }));
        assert!(wants(&Plan { all: true, ..Plan::default() }));
        let put = |id: &str| {
            let voice = ranked(Role::Voice).find(|entry| entry.id == id).unwrap();
            fs::write(models.folder().join(&voice.file), id).unwrap();
            store_pin(models.folder(), &voice.file, &shared::seal::sha256(id.as_bytes())).unwrap();
        };
        put("3dspeaker-campplus");
        assert!(!wants(&Plan::default()), "it belongs to another");
        put("wespeaker-resnet34-lm");
        assert!(wants(&Plan::default()));
    }
}
