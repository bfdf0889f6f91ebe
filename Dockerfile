# Two stages: the first builds as an ordinary user and has the tools for it, the second has only what runs.
# Any Debian or Ubuntu with Python 3.11 or later will do as the base; the payloads see the /usr of the second stage.
ARG BASE=debian:12-slim

FROM ${BASE} AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 python3-venv \
 && useradd --create-home builder \
 && install --directory --owner=builder /opt/sandboxd
USER builder
WORKDIR /home/builder/sandboxd
COPY --chown=builder:builder pyproject.toml requirements.lock README.md LICENSE ./
COPY --chown=builder:builder sandboxd sandboxd
COPY --chown=builder:builder profiles profiles
COPY --chown=builder:builder policies policies
# For a build without network: --build-arg PIP_NO_INDEX=1 --build-arg PIP_FIND_LINKS=/wheels and a volume with them.
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS
RUN python3 -m venv /opt/sandboxd \
 && /opt/sandboxd/bin/pip install --no-cache-dir --disable-pip-version-check --constraint requirements.lock .

FROM ${BASE}
# What payloads may run is what is installed here: add nodejs, git, gcc and so on for the profiles node and build.
ARG PACKAGES="python3 libseccomp2 libatomic1 ca-certificates"
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ${PACKAGES} \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --no-create-home --shell /usr/sbin/nologin sandboxd
# Not owned by the account that the daemon runs as: it must not be able to change its own code.
COPY --from=build --chown=root:root /opt/sandboxd /opt/sandboxd
ENV PATH=/opt/sandboxd/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    SANDBOXD_ADDRESS=unix:/run/sandboxd/sandboxd.sock
STOPSIGNAL SIGTERM
# The main process needs uid 0 and the capabilities that deploy/kubernetes/base/daemonset.yaml lists, each with its
# reason. The daemon, which talks to the network, is its child and becomes the user sandboxd.
ENTRYPOINT ["sandboxd"]
CMD ["serve"]
