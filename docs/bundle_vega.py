"""Write the Vega runtime of the report's page, ``src/batchscope/report/assets/vega.js``: ``make vega``.

The file is kept in the repository. To bundle it anew for every page would take seconds, and 84 MB of a package.
"""

from pathlib import Path

import altair
import vl_convert

PAGE = Path(__file__).parents[1] / "src/batchscope/report/assets/vega.js"
NOTICE = """/*! Vega, Vega-Lite {vega_lite}, vega-embed and vega-tooltip, bundled by vl-convert {bundler}.
Copyright (c) University of Washington Interactive Data Lab and contributors. BSD 3-Clause License:
Redistribution and use in source and binary forms, with or without modification, are permitted provided that the
following conditions are met: 1. Redistributions of source code must retain the above copyright notice, this list of
conditions and the following disclaimer. 2. Redistributions in binary form must reproduce the above copyright notice,
this list of conditions and the following disclaimer in the documentation and/or other materials provided with the
distribution. 3. Neither the name of the copyright holder nor the names of its contributors may be used to endorse or
promote products derived from this software without specific prior written permission. THIS SOFTWARE IS PROVIDED BY
THE COPYRIGHT HOLDERS AND CONTRIBUTORS "AS IS" AND ANY EXPRESS OR IMPLIED WARRANTIES, INCLUDING, BUT NOT LIMITED TO,
THE IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A PARTICULAR PURPOSE ARE DISCLAIMED. IN NO EVENT SHALL THE
COPYRIGHT HOLDER OR CONTRIBUTORS BE LIABLE FOR ANY DIRECT, INDIRECT, INCIDENTAL, SPECIAL, EXEMPLARY, OR CONSEQUENTIAL
DAMAGES (INCLUDING, BUT NOT LIMITED TO, PROCUREMENT OF SUBSTITUTE GOODS OR SERVICES; LOSS OF USE, DATA, OR PROFITS; OR
BUSINESS INTERRUPTION) HOWEVER CAUSED AND ON ANY THEORY OF LIABILITY, WHETHER IN CONTRACT, STRICT LIABILITY, OR TORT
(INCLUDING NEGLIGENCE OR OTHERWISE) ARISING IN ANY WAY OUT OF THE USE OF THIS SOFTWARE, EVEN IF ADVISED OF THE
POSSIBILITY OF SUCH DAMAGE. */
"""


def main() -> None:
    """Bundle the version of Vega-Lite that the installed Altair writes."""
    version = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    notice = NOTICE.format(vega_lite=version, bundler=vl_convert.__version__)
    # Its names would be global in a page: a function keeps them to itself.
    bundle = vl_convert.javascript_bundle(vl_version=version)
    PAGE.write_text(f'{notice}(() => {{"use strict";\n{bundle}\n}})();\n', encoding="utf-8")


if __name__ == "__main__":
    main()
