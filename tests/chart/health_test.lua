-- Tests deploy/argocd-health.lua: health_test.lua HEALTH_SCRIPT
--
-- Argo CD runs the script with the object as the global obj, and takes what it returns.
local script = assert(loadfile(arg[1]))
local passed, failed = 0, 0

local function expect(name, object, status, words)
  obj = object
  local fine, health = pcall(script)
  if not fine then
    health = { status = "an error: " .. tostring(health), message = "" }
  end
  if health.status == status and (words == nil or string.find(health.message or "", words, 1, true)) then
    passed = passed + 1
  else
    failed = failed + 1
    print(string.format("%s: %s (%s), expected %s (%s)", name, health.status, health.message, status, words))
  end
end

-- A resource whose Ready condition has this status and reason; further conditions by type, all True.
local function resource(ready, reason, more)
  local conditions = { { type = "Ready", status = ready, reason = reason, message = "what to do" } }
  for _, of_type in ipairs(more or {}) do
    table.insert(conditions, { type = of_type, status = "True", reason = reason, message = "what to do" })
  end
  return { metadata = { generation = 2 }, status = { observedGeneration = 2, conditions = conditions } }
end

expect("no status", { metadata = { generation = 1 } }, "Progressing", "operator")
expect("no conditions", { metadata = { generation = 1 }, status = { phase = "Pending" } }, "Progressing", "operator")
expect("empty conditions", { metadata = { generation = 1 }, status = { conditions = {} } }, "Progressing")

-- Every reason of the operator, by what it means: run.sh checks that none is missing.
local reasons = {
  Progressing = { "Progressing", LockHeld = 1, SecretMissing = 1, RedisUnavailable = 1, PredecessorPending = 1,
    SourceChanging = 1, Soaking = 1, OutOfMemory = 1, ReplicasMissing = 1, ReplicasBehind = 1, MarkMissing = 1, Progressing = 1 },
  Degraded = { "Degraded", InvalidSpec = 1, Duplicate = 1, Conflicts = 1, PreflightFailed = 1, UnknownMigration = 1,
    AuthenticationFailed = 1, PlanVersionUnknown = 1 },
  Suspended = { "Suspended", AwaitingApproval = 1, MarkUnproven = 1, Suspended = 1 },
  Healthy = { "Healthy", TargetReached = 1, TargetLowered = 1, NotApplicable = 1, Complete = 1, KeptOriginals = 1,
    Adopted = 1 },
}
for status, of_status in pairs(reasons) do
  for reason in pairs(of_status) do
    if type(reason) == "string" then
      local ready = status == "Healthy" and "True" or "False"
      local more = status == "Degraded" and { "Stalled" } or status == "Progressing" and { "Reconciling" } or {}
      expect(reason, resource(ready, reason, more), status, reason .. ": what to do")
    end
  end
end

-- What stands there is about the spec before.
for _, one in ipairs({ { "True", "TargetReached" }, { "False", "Conflicts", { "Stalled" } } }) do
  local old = resource(table.unpack(one))
  old.metadata.generation = 3
  expect("an older generation, " .. one[2], old, "Progressing", "not seen")
end
local unseen = resource("True", "TargetReached")
unseen.status.observedGeneration = nil
expect("no generation seen", unseen, "Progressing", "not seen")

-- A condition that is there and not true counts for nothing.
local over = resource("False", "Progressing", { "Stalled" })
over.status.conditions[2].status = "False"
expect("no longer stalled", over, "Progressing")

local wordless = resource("True", "TargetReached")
wordless.status.conditions[1].message = nil
expect("without a message", wordless, "Healthy", "TargetReached")

print(string.format("argocd-health: %d passed, %d failed", passed, failed))
os.exit(failed == 0)
