//! check, schema, status, completions, man, and exit codes.

use std::path::PathBuf;
use std::process::Output;

use anyhow::{Result, ensure};
use harness::{Kind, paths, python};

use crate::subject::{Server, config, plain};

crate::for_each_proxy!(
    check_accepts_the_smallest_configuration_and_the_examples,
    check_tells_every_error_at_once_with_its_place,
    the_schema_is_one_and_accepts_the_examples,
    a_wrong_command_line_is_exit_code_two,
    completions_and_the_manual_name_the_program,
    status_is_a_table_and_json,
    run_refuses_a_bad_file,
);

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A file with the smallest configuration whose names are filled in, its folder held.
fn smallest(kind: Kind) -> Result<(tempfile::TempDir, PathBuf)> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("small.yaml");
    let text = config(kind, "{address: 127.0.0.1:7000}");
    std::fs::write(&file, text.replace("$ADMIN", "127.0.0.1:7001").replace("$SERVER", "127.0.0.1:7002"))?;
    Ok((folder, file))
}

/// The files of `configs/` for this proxy.
fn examples(kind: Kind) -> Result<Vec<PathBuf>> {
    let name = kind.name().trim_start_matches("groove-");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(paths::repository().join("configs"))? {
        let path = entry?.path();
        let is_ours = path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name));
        if is_ours && path.extension().is_some_and(|extension| extension == "yaml") {
            files.push(path);
        }
    }
    ensure!(!files.is_empty(), "configs/ has no example for {name}");
    Ok(files)
}

fn check_accepts_the_smallest_configuration_and_the_examples(kind: Kind) -> Result<()> {
    let (_folder, file) = smallest(kind)?;
    for file in examples(kind)?.into_iter().chain([file]) {
        let output = kind.run(&["check".as_ref(), "--config".as_ref(), file.as_os_str()])?;
        assert_eq!(output.status.code(), Some(0), "{}:\n{}", file.display(), said(&output));
    }
    Ok(())
}

fn check_tells_every_error_at_once_with_its_place(kind: Kind) -> Result<()> {
    let (_folder, file) = smallest(kind)?;
    let text = std::fs::read_to_string(&file)?;
    let broken = text.replace("admin:", "admn:").replace("127.0.0.1:7000", "127.0.0.1:port");
    std::fs::write(&file, &broken)?;
    let output = kind.run(&["check".as_ref(), "--config".as_ref(), file.as_os_str()])?;
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let column = broken.find("127.0.0.1:port").unwrap() + 1;
    for wanted in [format!("small.yaml:1:{column}"), "small.yaml:2:1".to_owned(), "`admin`".to_owned()] {
        assert!(said.contains(&wanted), "{wanted} is not in\n{said}");
    }
    Ok(())
}

fn the_schema_is_one_and_accepts_the_examples(kind: Kind) -> Result<()> {
    let (folder, file) = smallest(kind)?;
    let schema = folder.path().join("schema.json");
    let output = kind.run(&["schema"])?;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    std::fs::write(&schema, &output.stdout)?;
    let mut arguments = vec![schema, file.clone()];
    arguments.extend(examples(kind)?);
    let script = paths::repository().join("integration/python/schema.py");
    let output = python::script(&script, &arguments, &[])?;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));

    std::fs::write(&file, "listeners: 7\n")?;
    let output = python::script(&script, &[&arguments[0], &file], &[])?;
    assert_eq!(output.status.code(), Some(1), "the schema takes anything: {}", said(&output));
    Ok(())
}

fn a_wrong_command_line_is_exit_code_two(kind: Kind) -> Result<()> {
    for arguments in [&["frobnicate"] as &[&str], &["check"], &[]] {
        let output = kind.run(arguments)?;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", said(&output));
    }
    Ok(())
}

fn completions_and_the_manual_name_the_program(kind: Kind) -> Result<()> {
    for arguments in [&["completions", "bash"] as &[&str], &["completions", "zsh"], &["man"], &["--version"]]
    {
        let output = kind.run(arguments)?;
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(kind.name()), "{arguments:?}: {}", said(&output));
    }
    Ok(())
}

fn status_is_a_table_and_json(kind: Kind) -> Result<()> {
    let server = Server::start(kind)?;
    let proxy = plain(kind, &server)?;
    let (listen, upstream) = (proxy.address().to_string(), server.address().to_string());
    let status = proxy.status()?.to_string();
    let output = kind.run(&["status", "--admin", &proxy.admin().to_string()])?;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    for text in [status, said(&output)] {
        assert!(
            text.contains(&listen) && text.contains(&upstream),
            "{listen} and {upstream} are not in\n{text}"
        );
    }
    let nobody = harness::Port::reserve()?;
    let output = kind.run(&["status", "--admin", &nobody.to_string()])?;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains(&nobody.to_string()), "{}", said(&output));
    Ok(())
}

fn run_refuses_a_bad_file(kind: Kind) -> Result<()> {
    let (_folder, file) = smallest(kind)?;
    std::fs::write(&file, "listeners: []\nnonsense: 1\n")?;
    let output = kind.run(&["run".as_ref(), "--config".as_ref(), file.as_os_str()])?;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("small.yaml:2:1"), "{}", said(&output));
    Ok(())
}
