-- Health of a RedisMigration for Argo CD, by the conditions that kstatus reads: see gitops.md.
local function condition(of_type)
  if obj.status ~= nil and obj.status.conditions ~= nil then
    for _, one in ipairs(obj.status.conditions) do
      if one.type == of_type then
        return one
      end
    end
  end
  return nil
end

local function health(status, message)
  return { status = status, message = message }
end

local ready = condition("Ready")
if ready == nil then
  return health("Progressing", "Waits for the operator")
end

-- What stands there is about an older spec.
if obj.status.observedGeneration == nil or obj.status.observedGeneration < obj.metadata.generation then
  return health("Progressing", "The operator has not seen this spec yet")
end

local message = ready.message
if ready.reason ~= nil then
  message = ready.reason .. ": " .. (ready.message or "")
end

if ready.status == "True" then
  return health("Healthy", message)
end
local stalled = condition("Stalled")
if stalled ~= nil and stalled.status == "True" then
  return health("Degraded", message)
end
-- A person has the next word: an approval, or the end of a suspension.
if ready.reason == "AwaitingApproval" or ready.reason == "MarkUnproven" or ready.reason == "Suspended" then
  return health("Suspended", message)
end
return health("Progressing", message)
