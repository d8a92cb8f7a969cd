"""Print the lowest versions that pyproject.toml allows, as pip requirements.

python .ci/lowest.py [EXTRA ...]
"""

import re
import sys
import tomllib

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
requirements = list(project["dependencies"])
for extra in sys.argv[1:]:
    requirements += project["optional-dependencies"][extra]
for requirement in requirements:
    match = re.fullmatch(r"([\w.-]+(?:\[[\w,]+\])?)>=([\w.]+)", requirement)
    if match:
        print(f"{match[1]}=={match[2]}")
