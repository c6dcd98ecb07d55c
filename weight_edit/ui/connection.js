// Says when the page's server has ended, and loads the page anew when there is another that may be asked.
(() => {
  const every = 3000;
  let first = null;
  let failed = 0;
  let said = null;
  const say = () => {
    if (said === null) {
      said = document.createElement("p");
      said.className = "we-lost";
      said.setAttribute("role", "alert");
      said.textContent =
        "The server of this page has ended. What it started goes on, and what was chosen is kept. Start weight-edit ui " +
        "again in the same folder, and open the address that it prints in the terminal.";
      document.body.prepend(said);
    }
  };
  const look = async () => {
    try {
      const answer = await fetch("/gradio_api/app_id", { cache: "no-store" });
      const app = answer.ok ? (await answer.json()).app_id : null;
      first ??= app;
      if (answer.status === 403 || (app !== null && app !== first)) {
        // Another server: it shows the page where the browser has its key, or says which address has it.
        location.reload();
        return;
      }
      failed = 0;
      said?.remove();
      said = null;
    } catch {
      failed += 1;
      if (failed > 1) say();
    }
    setTimeout(look, every);
  };
  look();
})();
