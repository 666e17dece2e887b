#!/usr/bin/env bash
# Guess: a page that participants open as a file (an offline survey or experiment) can keep their answers in localStorage: after
# a reload they are there, as for a page of a server.
# Found: in Chromium 156 a page at a file: address now and then finds its localStorage empty after a reload, with the old values
# back after a later one. sessionStorage, IndexedDB, window.name and history.state of the same page keep theirs, and the same page
# from a server loses nothing. A page that writes its beginning over what it did not find destroys the answers.
# Needs Debian 12 with the libraries of its chromium, and Python; the browser itself is unpacked in a temporary folder.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
version=156.0.8078.108-1~deb12u1
apt-get download --quiet "chromium=$version" "chromium-common=$version" >/dev/null
for package in *.deb; do dpkg -x "$package" browser; done
cat > page.html <<'P'
<html><body><script>
const found = { local: localStorage.getItem("k"), session: sessionStorage.getItem("k"), name: window.name || null, history: history.state };
function put(value) {
  localStorage.setItem("k", value); sessionStorage.setItem("k", value); window.name = value; history.replaceState(value, "");
}
</script></body></html>
P
python3 - "$folder" <<'P'
import functools, http.server, json, os, subprocess, sys, threading, time

folder = sys.argv[1]
program = f"{folder}/browser/usr/lib/chromium/chromium"
print(subprocess.run([program, "--version"], capture_output=True, text=True).stdout.strip())


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class Browser:
    """Headless Chromium, driven over the pipe of its protocol: commands on its descriptor 3, answers on 4."""

    def __init__(self, profile):
        theirs_in, self.out = os.pipe()
        self.inside, theirs_out = os.pipe()
        flags = "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --remote-debugging-pipe"
        script = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self.process = subprocess.Popen(
            ["bash", "-c", script, program, *flags.split(), f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.rest, self.count, self.session = b"", 0, None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable")

    def call(self, method, **parameters):
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        os.write(self.out, json.dumps(message | ({"sessionId": self.session} if self.session else {})).encode() + b"\0")
        while True:
            while b"\0" not in self.rest:
                self.rest += os.read(self.inside, 1 << 16)
            text, _, self.rest = self.rest.partition(b"\0")
            answer = json.loads(text)
            if answer.get("id") == self.count:
                return answer.get("result", {})

    def js(self, expression):
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True).get("result", {}).get("value")

    def go(self, url):
        self.js("window.old = true")
        self.call("Page.navigate", url=url)
        while not self.js("document.readyState === 'complete' && !window.old && typeof found === 'object'"):
            time.sleep(0.02)

    def close(self):
        self.process.kill()
        self.process.wait()


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
threading.Thread(target=server.serve_forever, daemon=True).start()
addresses = {"file": f"file://{folder}/page.html", "http": f"http://127.0.0.1:{server.server_port}/page.html"}
forgotten = {}
for kind, url in addresses.items():
    loads, missing, back, others = 0, 0, 0, 0
    for number in range(10):
        browser = Browser(f"{folder}/profile-{kind}-{number}")
        browser.go(url)
        browser.js("put('answers')")
        time.sleep(0.3)
        before = True
        for _ in range(4):
            browser.go(url)
            found = browser.js("found")
            here = found["local"] == "answers"
            loads, missing, back = loads + 1, missing + (not here), back + (here and not before)
            others += any(found[name] != "answers" for name in ("session", "name", "history"))
            before = here
        browser.close()
    print(f"{kind}: of {loads} reloads {missing} found localStorage empty, {back} found it again after that; {others} missed "
          "sessionStorage, window.name or history.state")
    forgotten[kind] = missing
sys.exit(0 if forgotten["file"] > 0 and forgotten["http"] == 0 else "the behaviour has changed")
P
