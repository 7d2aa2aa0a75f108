//! The pages of the development checkout, used as a browser uses them.

use reqwest::{Response, redirect};

use super::app::TestApp;

fn browser() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().redirect(redirect::Policy::none()).build().unwrap()
}

/// A page of the program's own, wherever the settings say that it is.
pub fn here(t: &TestApp, url: &str) -> String {
    url.replace("http://localhost:1", &t.base)
}

/// Submits a page with one of its buttons.
pub async fn submit(page: &str, button: &str) -> Response {
    let request = browser().post(page).header("content-type", "application/x-www-form-urlencoded");
    request.body(format!("press={button}")).send().await.unwrap()
}

/// Presses a button of a page and says where that leads.
pub async fn press(t: &TestApp, page: &str, button: &str) -> String {
    let shown = browser().get(here(t, page)).send().await.unwrap();
    assert_eq!(shown.status(), 200);
    let html = shown.text().await.unwrap();
    assert!(html.contains(&format!("value=\"{button}\"")), "no button {button} on {html}");
    let answer = submit(&here(t, page), button).await;
    assert_eq!(answer.status(), 303, "{}", answer.text().await.unwrap());
    answer.headers()["location"].to_str().unwrap().to_owned()
}
