"""The report on this machine's own address alone, with maps decoded on demand at any latent.

Who may read: whoever knows the token in the address, from a page of this server. It listens on 127.0.0.1, looks at the Host
header (another site's name that is made to point here is refused) and at Origin (so is another site's script), answers GET
only, and gives out nothing but the report, the files below its folder (no links out of it), maps and particle images.
"""

import hmac
import json
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from torch import Tensor

from cryorecon.data.files import require_file
from cryorecon.errors import InputError, one_line
from cryorecon.geometry.fourier import resample
from cryorecon.report.explorer import BOX
from cryorecon.report.packed import pack, pack_density
from cryorecon.report.page import served
from cryorecon.report.surface import ground_and_top
from cryorecon.report.thumbnails import Thumbnails

HOST = "127.0.0.1"
KEPT = 64  # decoded maps kept
FAR = 1e6  # no latent lies beyond
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
           "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin",
           "Cross-Origin-Opener-Policy": "same-origin"}
DOWNLOAD = {"Content-Security-Policy": "default-src 'none'; sandbox", "Content-Disposition": "attachment"}


class Refused(Exception):
    """An answer that isn't the thing asked for: an HTTP status and one line."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class ReportServer(ThreadingHTTPServer):
    """Serves ``folder`` (what ``analyze`` wrote). decode: z ``(zdim,)`` -> map ``(D, D, D)``. images: particle -> its images,
    or None where the particles' files are gone. ``address`` is where to look; ``port`` 0 takes a free one.

    Raises
    ------
    InputError: no report in the folder, or a port that is taken.
    """

    daemon_threads = True

    def __init__(self, folder: Path, decode: Callable[[np.ndarray], Tensor], zdim: int,
                 images: Callable[[int], Thumbnails] | None = None, particles: int = 0, port: int = 0):
        self.folder = folder.resolve()
        page = require_file(self.folder / "report.html", "a report; run `cryorecon analyze` on this epoch first")
        self.page = served(page.read_text(encoding="utf-8")).encode()
        self.decode, self.zdim, self.images, self.particles = decode, zdim, images, particles
        self.token = secrets.token_urlsafe(24)
        self._decoding, self._kept = threading.Lock(), OrderedDict[bytes, bytes]()
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise InputError(f"--port {port}: expected a free port, found: {error.strerror}; leave --port out to take any "
                             "that is") from None
        self.names = {f"{HOST}:{self.server_port}", f"localhost:{self.server_port}"}

    @property
    def address(self) -> str:
        """The report's address, token and all."""
        return f"http://{HOST}:{self.server_port}/{self.token}/"

    def volume(self, query: str) -> bytes:
        """JSON of the map at ``z=0.5,1,...``: box, low, high and data as a report holds them."""
        try:
            given = np.array([float(part) for part in _only(query, "z").split(",")])
        except ValueError:
            raise Refused(400, "expected z as numbers with commas between") from None
        if given.shape != (self.zdim,) or not (np.abs(given) < FAR).all():
            raise Refused(400, f"expected z of {self.zdim} finite numbers, found {len(given)}")
        z = given.astype(np.float32)
        with self._decoding:  # one at a time: a decoder takes all the memory that it may
            key = z.tobytes()
            if key not in self._kept:
                density = self.decode(z).float()
                few = resample(density, min(density.shape[-1], BOX), 3)
                low, high = ground_and_top(few)[0], float(few.max())
                packed = {"box": few.shape[-1], "low": low, "high": high, "data": pack_density(few, few.shape[-1], low, high)}
                self._kept[key] = json.dumps(packed).encode()
                if len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]

    def pictures(self, query: str) -> bytes:
        """JSON of the images of ``particle=12``: side, count and tiles."""
        text = _only(query, "particle")
        if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text) < self.particles):
            raise Refused(400, f"expected a particle from 0 to {self.particles - 1}")
        if self.images is None:
            raise Refused(404, "the run's particles are not where they were")
        try:
            with self._decoding:
                found = self.images(int(text))
        except InputError as error:  # a stack that has shrunk since it was opened
            raise Refused(404, one_line(str(error))) from None
        return json.dumps({"side": found.tiles.shape[-1], "count": len(found.tiles), "tiles": pack(found.tiles)}).encode()

    def file(self, name: str) -> Path:
        """A file below the folder; Refused for anything else, links that lead out of it too."""
        try:
            path = (self.folder / name).resolve()
            if path.is_relative_to(self.folder) and path.is_file():
                return path
        except (OSError, ValueError, RuntimeError):  # a name too long, a zero byte, a loop of links
            pass
        raise Refused(404, "no such file")


def _only(query: str, name: str) -> str:
    """The one value of ``name`` in a query that holds nothing else."""
    held = parse_qs(query, keep_blank_values=True)
    if set(held) != {name} or len(held[name]) != 1:
        raise Refused(400, f"expected ?{name}=... alone")
    return held[name][0]


class _Handler(BaseHTTPRequestHandler):
    server: ReportServer
    server_version, sys_version, timeout = "cryorecon", "", 30

    def do_GET(self) -> None:
        try:
            self._answer()
        except Refused as refused:
            self._send(f"{refused}\n".encode(), "text/plain; charset=utf-8", refused.status)
        except OSError:  # the reader has gone, or takes nothing any more
            self.close_connection = True

    def _answer(self) -> None:
        names, sites = self.headers.get_all("Host", []), self.headers.get_all("Origin", [])
        if len(names) != 1 or names[0] not in self.server.names:
            raise Refused(403, "expected this machine's own address in Host")
        abroad = self.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site")  # the same site: another port of 127.0.0.1
        asked = abroad and self.headers.get("Sec-Fetch-Mode") != "navigate"  # not a link that somebody followed
        if asked or any(site not in {f"http://{name}" for name in self.server.names} for site in sites):
            raise Refused(403, "expected a page of this server to ask")
        try:
            address = urlsplit(self.path)
        except ValueError:
            raise Refused(400, "expected an address") from None
        token, _, name = unquote(address.path).removeprefix("/").partition("/")
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            raise Refused(404, "not found; the whole address stands in the terminal where serve runs")
        if name == "volume":
            self._send(self.server.volume(address.query), "application/json")
        elif name == "images":
            self._send(self.server.pictures(address.query), "application/json")
        elif name in ("", "report.html"):
            if not address.path.startswith(f"/{token}/"):
                raise Refused(404, "expected a slash at the end of the address; add it")
            self._send(self.server.page, "text/html; charset=utf-8")
        else:
            self._download(self.server.file(name))

    def _send(self, body: bytes, kind: str, status: int = 200) -> None:
        self._head(status, kind, len(body))
        self.wfile.write(body)

    def _download(self, path: Path) -> None:
        try:
            file = path.open("rb")
        except OSError:
            raise Refused(404, "no such file") from None
        with file:
            self._head(200, "application/octet-stream", path.stat().st_size, DOWNLOAD)
            self.copy(file)

    def copy(self, file: Any) -> None:
        while part := file.read(1 << 20):
            self.wfile.write(part)

    def _head(self, status: int, kind: str, length: int, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(length), **HEADERS, **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing: an address in a log would give the token away."""
