"""The app as a folder for a static host, or as one HTML file that runs from the disk."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path

from lit_jax.app import runtime
from lit_jax.app.contents import DESCRIPTION, PACKED
from lit_jax.app.runtime import Runtime

PAGE = Path(__file__).with_name("page")
STRINGS = "strings.json"
INDEX, WORKER = "index.html", "sw.js"
SENTENCES = "strings.js"
"""Of the folder; it and `INDEX` have no digest: translators change the one, and some hosts add to the other."""
LICENCES = "LICENCES.txt"
# Who may be asked for what: nobody but the app's own host.
_POLICY = {
    "default-src": "'none'", "script-src": "'self' blob: 'wasm-unsafe-eval'", "style-src": "'self'",
    "img-src": "'self' blob:", "connect-src": "'self'", "worker-src": "'self' blob:", "manifest-src": "'self'",
    "base-uri": "'none'", "form-action": "'none'",
}  # fmt: skip
_POLICY_OF_ONE = {
    **_POLICY, "script-src": "'unsafe-inline' blob: 'wasm-unsafe-eval'", "style-src": "'unsafe-inline'",
    "img-src": "blob: data:", "connect-src": "blob: data:", "worker-src": "blob:", "manifest-src": "'none'",
}  # fmt: skip
_IMPORT = re.compile(r'^import (?:\* as (\w+)|\{[^}]*\}) from "\./([\w.]+)";\n', re.M)
_EXPORT = re.compile(r"^export (?:async )?(?:function\*?|class|const) ([\w$]+)", re.M)


def folder_files(files: Mapping[str, bytes], run: Runtime, title: str) -> dict[str, bytes]:
    """The files of an app's folder, by name.

    Args:
        files: that the page reads, from `lit_jax.app.contents.files_of`.
        run: what runs the model.
        title: of the app.
    """
    shell = {
        path.name: path.read_bytes() for path in sorted(PAGE.iterdir()) if path.name not in (STRINGS, WORKER, INDEX)
    }
    shell["manifest.webmanifest"] = _manifest(title).encode()
    shell["ort.js"] = run.script
    shell[LICENCES] = _licences().encode()
    description = _with_shell(files[DESCRIPTION], shell)
    free = {INDEX: _page(title, _POLICY, description).encode(), SENTENCES: _strings().encode()}
    kept = {**shell, **free, DESCRIPTION: description}
    digests = {name: "" if name in free else _digest(kept[name]) for name in sorted(kept)}
    version = _digest(b"".join(name.encode() + kept[name] for name in sorted(kept)))[:16]
    named = json.dumps({"./" if name == INDEX else name: digest for name, digest in digests.items()}, indent=1)
    worker = _read(WORKER).replace("@VERSION@", version).replace('"@SHELL@"', named)
    return {**files, **kept, WORKER: worker.encode()}


def _with_shell(description: bytes, shell: Mapping[str, bytes]) -> bytes:
    """``app.json`` with the SHA-256 of what the page is made of, by name."""
    digests = {name: _digest(shell[name]) for name in sorted(shell)}
    return json.dumps({**json.loads(description), "shell": digests}, ensure_ascii=False).encode()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def one_file(files: Mapping[str, bytes], run: Runtime, title: str) -> str:
    """The app as the text of one HTML file, the model inside."""
    main = f"\n{bundled('app.js')}"
    scripts = {"worker.js": bundled("worker.js").encode(), "ort.js": run.script}
    description = _with_shell(files[DESCRIPTION], {**scripts, "app.js": main.encode()})
    page = _page(title, _POLICY_OF_ONE, description)
    style = f"<style>\n{(PAGE / 'style.css').read_text('utf-8')}</style>"
    page = re.sub(r"  <!-- begin.*?<!-- end -->", lambda _: style, page, flags=re.S)
    inside = {**files, **scripts, DESCRIPTION: description}
    data = "\n".join(
        f'<script type="text/plain" id="file:{name.removesuffix(PACKED)}">{base64.b64encode(data).decode()}</script>'
        for name, data in inside.items()
    )
    start = _read("start.js")
    text = "\n".join(
        [data, f"<script>{_strings()}</script>", f"<script>{start}</script>",
         f'<script type="module">{main}</script>', f"<!--\n{_licences()}-->"]
    )  # fmt: skip
    return re.sub(r"  <!-- scripts -->.*?(?=</body>)", lambda _: text + "\n", page, flags=re.S)


def bundled(name: str) -> str:
    """A module and all that it imports as one; names of the page's modules are chosen to be different for that."""
    order: list[str] = []
    spaces: dict[str, str] = {}  # modules that are imported as a whole, and under which name

    def visit(module: str) -> None:
        for alias, other in _IMPORT.findall(_read(module)):
            spaces.update({other: alias} if alias else {})
            if other not in order:
                visit(other)
        order.append(module)

    visit(name)
    return "\n".join(_as_part(module, spaces.get(module, "")) for module in order)


def _as_part(module: str, alias: str) -> str:
    text = _IMPORT.sub("", _read(module))
    exported = ", ".join(_EXPORT.findall(text))
    whole = f"const {alias} = {{ {exported} }};\n" if alias else ""
    return re.sub(r"^export ", "", text, flags=re.M) + whole


def _read(name: str) -> str:
    return (PAGE / name).read_text("utf-8")


def _page(title: str, policy: Mapping[str, str], description: bytes) -> str:
    strings = json.loads(_read(STRINGS))
    told = {
        "@TITLE@": html.escape(title), "@NOSCRIPT@": html.escape(strings["noScript"]),
        "@APP@": _digest(description),
        "@POLICY@": "; ".join(f"{name} {value}" for name, value in policy.items()),
    }  # fmt: skip
    page = _read("index.html")
    return re.sub("|".join(told), lambda found: told[found[0]], page)


def _strings() -> str:
    """Every sentence of the page, as a script: what a translator edits."""
    text = _read(STRINGS).strip().replace("</", "<\\/")
    return f"globalThis.STRINGS = {text};\n"


def _manifest(title: str) -> str:
    icons = [
        {"src": f"icon-{side}.png", "sizes": f"{side}x{side}", "type": "image/png", "purpose": purpose}
        for side in (192, 512)
        for purpose in ("any", "maskable")
    ]
    return json.dumps(
        {"name": title, "short_name": title[:12].strip(), "start_url": "./", "scope": "./", "display": "standalone",
         "background_color": "#f6f7f5", "theme_color": "#f6f7f5", "icons": icons},
        ensure_ascii=False, indent=1,
    )  # fmt: skip


def _licences() -> str:
    ours = "The page: lit_jax, Apache License 2.0, https://www.apache.org/licenses/LICENSE-2.0"
    return f"{ours}\n\nort.js and ort.wasm: ONNX Runtime Web {runtime.VERSION}\n\n{runtime.LICENCE}"
