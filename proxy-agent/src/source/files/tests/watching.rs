//! The whole source, on a directory that changes under it.

use super::*;

struct Running {
    base: TempDir,
    arrivals: mpsc::Receiver<Arrival>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    /// The source on `base/dir`, which `prepare` has made.
    async fn start(prepare: impl FnOnce(&Path)) -> Self {
        let base = tempfile::tempdir().unwrap();
        prepare(base.path());
        let (sender, arrivals) = mpsc::channel(16);
        let files = Files::new(base.path().join("dir"), "node1", 1 << 20);
        let task = tokio::spawn(files.run(sender));
        Self {
            base,
            arrivals,
            task,
        }
    }

    async fn on_files(files: &[(&str, &str)]) -> Self {
        Self::start(|base| {
            let dir = base.join("dir");
            fs::create_dir(&dir).unwrap();
            for (name, text) in files {
                fs::write(dir.join(name), text).unwrap();
            }
        })
        .await
    }

    fn path(&self, name: &str) -> PathBuf {
        self.base.path().join("dir").join(name)
    }

    async fn expect(&mut self, events: &[&str]) {
        let batch = timeout(Duration::from_secs(10), self.arrivals.recv()).await;
        assert_eq!(said(&batch.expect("nothing came").unwrap().batch), events);
    }

    async fn expect_quiet(&mut self) {
        let batch = timeout(Duration::from_millis(300), self.arrivals.recv()).await;
        assert!(batch.is_err(), "{batch:?}");
    }
}

#[tokio::test]
async fn the_first_batch_is_the_whole_directory_and_ends_the_lists() {
    let mut at = Running::on_files(&[("a.yaml", &service_yaml("a", 80)), ("b.yaml", "[")]).await;
    at.expect(&["+a:80", "synced", "synced"]).await;
    let mut empty = Running::on_files(&[]).await;
    empty.expect(&["synced", "synced"]).await;
    empty.expect_quiet().await;
}

#[tokio::test]
async fn a_directory_that_is_not_there_at_the_start_is_an_error_that_names_it() {
    let at = Running::start(|_| ()).await;
    let error = at.task.await.unwrap().unwrap_err();
    assert!(
        format!("{error:#}").contains("dir: No such file"),
        "{error:#}"
    );
}

#[tokio::test]
async fn the_source_ends_when_nobody_listens_any_more() {
    let mut at = Running::on_files(&[]).await;
    at.expect(&["synced", "synced"]).await;
    drop(at.arrivals);
    timeout(Duration::from_secs(10), at.task)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn files_that_are_written_renamed_linked_and_deleted_are_noticed() {
    let mut at = Running::on_files(&[]).await;
    at.expect(&["synced", "synced"]).await;

    fs::write(at.path("a.yaml"), service_yaml("a", 80)).unwrap();
    at.expect(&["+a:80"]).await;

    fs::write(at.path(".a.yaml.tmp"), service_yaml("a", 81)).unwrap();
    fs::rename(at.path(".a.yaml.tmp"), at.path("a.yaml")).unwrap();
    at.expect(&["+a:81"]).await;

    fs::rename(at.path("a.yaml"), at.path("a.yaml~")).unwrap();
    fs::write(at.path("a.yaml"), service_yaml("a", 82)).unwrap();
    at.expect(&["+a:82"]).await;

    fs::create_dir(at.path("sub")).unwrap();
    fs::write(at.path("sub/b.yaml"), service_yaml("b", 80)).unwrap();
    at.expect(&["+b:80"]).await;
    fs::write(at.path("sub/b.yaml"), service_yaml("b", 81)).unwrap();
    at.expect(&["+b:81"]).await;

    let elsewhere = at.base.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("c.yaml"), service_yaml("c", 80)).unwrap();
    symlink(elsewhere.join("c.yaml"), at.path("c.yaml")).unwrap();
    at.expect(&["+c:80"]).await;
    fs::write(elsewhere.join("c.yaml"), service_yaml("c", 81)).unwrap();
    at.expect(&["+c:81"]).await;

    fs::remove_file(at.path("a.yaml")).unwrap();
    at.expect(&["-a"]).await;
    fs::remove_dir_all(at.path("sub")).unwrap();
    at.expect(&["-b"]).await;
}

#[tokio::test]
async fn changes_that_come_together_are_one_batch() {
    let mut at = Running::on_files(&[]).await;
    at.expect(&["synced", "synced"]).await;
    let mut first = fs::File::create(at.path("a.yaml")).unwrap();
    first.write_all(service_yaml("a", 80).as_bytes()).unwrap();
    for name in ["b", "c"] {
        fs::write(at.path(&format!("{name}.yaml")), service_yaml(name, 80)).unwrap();
    }
    drop(first);
    at.expect(&["+a:80", "+b:80", "+c:80"]).await;
    at.expect_quiet().await;
}

#[tokio::test]
async fn a_file_is_read_when_its_writer_is_done() {
    let text = format!("{}---\n{}", service_yaml("a", 80), service_yaml("b", 80));
    let mut at = Running::on_files(&[("a.yaml", &text)]).await;
    at.expect(&["+a:80", "+b:80", "synced", "synced"]).await;
    // Truncated, the file has no objects; with its first half, one.
    let text = text.replace("80", "81");
    let mut file = fs::File::create(at.path("a.yaml")).unwrap();
    let (first, second) = text.split_at(text.find("---").unwrap());
    file.write_all(first.as_bytes()).unwrap();
    at.expect_quiet().await;
    file.write_all(second.as_bytes()).unwrap();
    drop(file);
    at.expect(&["+a:81", "+b:81"]).await;
}

#[tokio::test]
async fn a_mounted_config_map_is_followed_when_it_is_swapped() {
    let version = |base: &Path, name: &str, files: &[(&str, String)]| {
        let dir = base.join("dir").join(name);
        fs::create_dir_all(&dir).unwrap();
        for (name, text) in files {
            fs::write(dir.join(name), text).unwrap();
        }
    };
    let mut at = Running::start(|base| {
        version(
            base,
            "..2026_1",
            &[
                ("a.yaml", service_yaml("a", 80)),
                ("b.yaml", service_yaml("b", 80)),
            ],
        );
        symlink("..2026_1", base.join("dir/..data")).unwrap();
        symlink("..data/a.yaml", base.join("dir/a.yaml")).unwrap();
        symlink("..data/b.yaml", base.join("dir/b.yaml")).unwrap();
    })
    .await;
    at.expect(&["+a:80", "+b:80", "synced", "synced"]).await;
    for (name, port) in [("..2026_2", 81), ("..2026_3", 82)] {
        version(at.base.path(), name, &[("a.yaml", service_yaml("a", port))]);
        symlink(name, at.path("..data_tmp")).unwrap();
        fs::rename(at.path("..data_tmp"), at.path("..data")).unwrap();
        let changed = format!("+a:{port}");
        match port {
            81 => at.expect(&["-b", &changed]).await,
            _ => at.expect(&[&changed]).await,
        }
    }
}

#[tokio::test]
async fn a_directory_that_is_replaced_or_linked_anew_is_followed() {
    let mut at = Running::start(|base| {
        for (name, port) in [("one", 80), ("two", 81), ("three", 82)] {
            fs::create_dir(base.join(name)).unwrap();
            fs::write(base.join(name).join("a.yaml"), service_yaml("a", port)).unwrap();
        }
        symlink("one", base.join("dir")).unwrap();
    })
    .await;
    at.expect(&["+a:80", "synced", "synced"]).await;

    let dir = at.base.path().join("dir");
    symlink("two", at.base.path().join("next")).unwrap();
    fs::rename(at.base.path().join("next"), &dir).unwrap();
    at.expect(&["+a:81"]).await;

    // For a while there is none, and nothing is forgotten.
    fs::remove_file(&dir).unwrap();
    at.expect_quiet().await;
    fs::rename(at.base.path().join("three"), &dir).unwrap();
    at.expect(&["+a:82"]).await;
    fs::write(at.path("a.yaml"), service_yaml("a", 83)).unwrap();
    at.expect(&["+a:83"]).await;
}

#[tokio::test]
async fn a_change_is_noticed_and_not_found_by_looking_now_and_then() {
    let mut at = Running::on_files(&[]).await;
    at.expect(&["synced", "synced"]).await;
    let start = Instant::now();
    fs::write(at.path("a.yaml"), service_yaml("a", 80)).unwrap();
    at.expect(&["+a:80"]).await;
    assert!(start.elapsed() < watch::POLL / 2);
}
