//! What an example says when it cannot start.

use std::process::{Command, Output};

use tokio::net::TcpListener;

/// Runs this test program again as an example that listens.
fn start(port: &str) -> Output {
    let mut example = Command::new(std::env::current_exe().expect("it runs"));
    example.args([
        "--exact",
        "listening::as_an_example",
        "--nocapture",
        "--include-ignored",
    ]);
    example.env("PORT", port).output().expect("it starts")
}

/// No test by itself: what `start` runs.
#[tokio::test]
#[ignore = "run by the others"]
async fn as_an_example() {
    match super::listen::listen().await {
        Ok(listener) => println!("listens on {}", listener.local_addr().unwrap().port()),
        Err(error) => println!("Error: {error:?}"),
    }
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test]
async fn a_port_in_use_is_named_and_what_to_do_about_it() {
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = other.local_addr().unwrap().port();
    let said = said(&start(&port.to_string()));
    assert!(said.contains(&format!("port {port} is in use")), "{said}");
    assert!(said.contains("PORT=3001"), "{said}");
}

#[tokio::test]
async fn what_is_no_port_is_named() {
    let said = said(&start("abc"));
    assert!(said.contains("PORT=abc is not a port"), "{said}");
}

#[tokio::test]
async fn a_port_that_is_free_is_found() {
    let said = said(&start("0"));
    assert!(said.contains("listens on "), "{said}");
}
