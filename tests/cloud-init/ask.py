"""Asks cloud-init's own code what it makes of seeds. A list of seeds as JSON on standard input, each an object of files;
on standard output what each is to it: the parts of its user-data, the configuration that they are together, what its
schema says of that, and its network in the words of each renderer."""

import io
import json
import logging
import os
import subprocess
import sys
import tempfile

from cloudinit import handlers, helpers, safeyaml, user_data, util
from cloudinit.config import schema
from cloudinit.handlers.cloud_config import CloudConfigPartHandler
from cloudinit.handlers.jinja_template import JinjaTemplatePartHandler
from cloudinit.net import eni, netplan, network_manager, network_state, networkd


class Kept(logging.Handler):
    """What it warns of."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def userdata(text, work):
    paths = helpers.Paths({"cloud_dir": work + "/cloud", "run_dir": work + "/run"})
    os.makedirs(work + "/cloud/instance", exist_ok=True)
    os.makedirs(work + "/run", exist_ok=True)
    paths.get_ipath = lambda name=None: work + "/config"
    util.write_file(paths.get_runpath("instance_data_sensitive"), json.dumps({"v1": {"local_hostname": "seen"}}))
    message = user_data.UserDataProcessor(paths).process(text.encode())
    config = CloudConfigPartHandler(paths)
    config.cloud_fn = work + "/config"
    template = JinjaTemplatePartHandler(paths, sub_handlers=[config])
    config.handle_part(None, handlers.CONTENT_START, None, None, None, None)
    parts = []
    for part in message.walk():
        if part.get_content_maintype() == "multipart":
            continue
        kind, payload = part.get_content_type(), util.fully_decoded_payload(part)
        parts.append({"kind": kind, "name": part.get_filename(), "text": payload})
        handler = {"text/cloud-config": config, "text/cloud-config-jsonp": config, "text/jinja2": template}.get(kind)
        if handler:
            handler.handle_part(None, kind, part.get_filename() or "part", payload, None, dict(part))
    merged = config.cloud_buf
    config.handle_part(None, handlers.CONTENT_END, None, None, None, None)
    return parts, merged


def validated(config, work):
    """By the library, and by the command that people use; older ones exit 0 with «Valid», newer ones write to stderr."""
    problems = []
    try:
        schema.validate_cloudconfig_schema(config, schema=schema.get_schema(), strict=True)
    except schema.SchemaValidationError as error:
        problems.append(str(error))
    path = work + "/whole"
    util.write_file(path, "#cloud-config\n" + safeyaml.dumps(config))
    ran = subprocess.run(
        [sys.executable, "-m", "cloudinit.cmd.main", "schema", "--config-file", path, "--annotate"],
        capture_output=True,
        text=True,
    )
    if ran.returncode != 0 or "Error" in ran.stdout:
        problems.append(ran.stdout + ran.stderr)
    return problems


RENDERERS = {"netplan": netplan, "eni": eni, "networkd": networkd, "network-manager": network_manager}


def network(text, work):
    config = util.load_yaml(text)
    kind = getattr(schema, "SchemaType", None)
    if kind is not None and hasattr(kind, "NETWORK_CONFIG"):
        schema.validate_cloudconfig_schema({"network": config}, schema_type=kind.NETWORK_CONFIG, strict=True)
    # Names are by MAC: those of this machine's links are none of the guest's.
    network_state.get_interfaces_by_mac = lambda *_: {}
    written = {}
    for name, module in RENDERERS.items():
        state = network_state.parse_net_config_data(config, skip_broken=False)
        target = os.path.join(work, name)
        os.makedirs(target + "/etc/network/interfaces.d", exist_ok=True)
        settings = {"postcmds": False} if name == "netplan" else None
        renderer = module.Renderer(settings) if settings else module.Renderer()
        try:
            renderer.render_network_state(state, target=target)
        except TypeError:
            renderer.render_network_state(network_state=state, target=target)
        files = {}
        for folder, _, names in os.walk(target):
            for file in names:
                path = os.path.join(folder, file)
                with open(path, encoding="utf-8", errors="replace") as opened:
                    files[os.path.relpath(path, target)] = opened.read()
        written[name] = files
    return written


def main():
    answers = []
    for seed in json.load(sys.stdin):
        kept = Kept()
        logging.getLogger().handlers = [kept]
        with tempfile.TemporaryDirectory() as work:
            parts, merged = userdata(seed["user-data"], work)
            answers.append(
                {
                    "parts": parts,
                    "config": merged,
                    "problems": validated(merged, work),
                    "network": network(seed["network-config"], work),
                    "meta": util.load_yaml(seed["meta-data"]),
                    "warnings": kept.lines,
                }
            )
    out = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8")
    json.dump(answers, out)
    out.flush()


main()
